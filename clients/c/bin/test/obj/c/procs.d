bin/test/obj/c/procs.o: procs.c procs.h internal.h cursor.h ismfs.h smc.h
procs.h:
internal.h:
cursor.h:
ismfs.h:
smc.h:
