bin/test/obj/c/slots.o: slots.c procs.h internal.h cursor.h ismfs.h
procs.h:
internal.h:
cursor.h:
ismfs.h:
