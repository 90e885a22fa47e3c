bin/test/obj/c/header.o: header.c internal.h cursor.h ismfs.h
internal.h:
cursor.h:
ismfs.h:
