bin/test/obj/c/wait.o: wait.c internal.h cursor.h ismfs.h
internal.h:
cursor.h:
ismfs.h:
