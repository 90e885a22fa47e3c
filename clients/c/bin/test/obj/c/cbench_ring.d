bin/test/obj/c/cbench_ring.o: examples/cbench_ring.c examples/cbench.h \
 ismfs.h
examples/cbench.h:
ismfs.h:
