bin/test/obj/c/transfer.o: examples/transfer.c examples/transfer.h \
 ismfs.h
examples/transfer.h:
ismfs.h:
