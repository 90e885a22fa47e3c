bin/test/obj/c/smc.o: smc.c ismfs.h smc.h
ismfs.h:
smc.h:
