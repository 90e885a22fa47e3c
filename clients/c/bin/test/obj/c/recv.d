bin/test/obj/c/recv.o: examples/recv.c examples/transfer.h ismfs.h
examples/transfer.h:
ismfs.h:
