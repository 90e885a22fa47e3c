bin/test/obj/c/dmb.o: dmb.c internal.h cursor.h ismfs.h
internal.h:
cursor.h:
ismfs.h:
