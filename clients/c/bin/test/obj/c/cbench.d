bin/test/obj/c/cbench.o: examples/cbench.c examples/cbench.h ismfs.h
examples/cbench.h:
ismfs.h:
