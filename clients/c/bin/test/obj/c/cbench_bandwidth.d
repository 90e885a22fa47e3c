bin/test/obj/c/cbench_bandwidth.o: examples/cbench_bandwidth.c \
 examples/cbench.h ismfs.h
examples/cbench.h:
ismfs.h:
