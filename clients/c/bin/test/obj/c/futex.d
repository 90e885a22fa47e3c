bin/test/obj/c/futex.o: futex.c internal.h cursor.h ismfs.h
internal.h:
cursor.h:
ismfs.h:
