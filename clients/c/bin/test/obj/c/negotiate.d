bin/test/obj/c/negotiate.o: negotiate.c clc_path.h clc.h smc.h
clc_path.h:
clc.h:
smc.h:
