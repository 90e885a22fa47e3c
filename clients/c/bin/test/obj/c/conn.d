bin/test/obj/c/conn.o: conn.c internal.h cursor.h ismfs.h
internal.h:
cursor.h:
ismfs.h:
