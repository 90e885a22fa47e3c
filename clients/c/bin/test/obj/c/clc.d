bin/test/obj/c/clc.o: clc.c clc_path.h clc.h smc.h
clc_path.h:
clc.h:
smc.h:
