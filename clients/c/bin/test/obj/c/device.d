bin/test/obj/c/device.o: device.c internal.h cursor.h ismfs.h
internal.h:
cursor.h:
ismfs.h:
