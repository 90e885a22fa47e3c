bin/test/obj/c/cbench_cost.o: examples/cbench_cost.c examples/cbench.h \
 ismfs.h
examples/cbench.h:
ismfs.h:
