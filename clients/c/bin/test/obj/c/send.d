bin/test/obj/c/send.o: examples/send.c examples/transfer.h ismfs.h
examples/transfer.h:
ismfs.h:
