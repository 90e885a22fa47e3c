bin/test/obj/c/bell.o: bell.c internal.h cursor.h ismfs.h
internal.h:
cursor.h:
ismfs.h:
