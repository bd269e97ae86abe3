/* As init: asks for children that would be its siblings, which the first process cannot have. */

#include "linux.h"

#define SYS_clone 220
#define SYS_clone3 435
#define CLONE_PARENT 0x8000
#define SIGCHLD 17

static void tell(const char *what, long result)
{
	say(what);
	say(result == -22 ? " EINVAL\n" : result < 0 ? " another error\n" : " a child\n");
}

_Noreturn void start(long *stack)
{
	unsigned long arguments[8] = { CLONE_PARENT };

	(void)stack;
	tell("clone:", call(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0, 0));
	tell("clone3:", call(SYS_clone3, (long)arguments, sizeof(arguments), 0, 0, 0, 0));
	leave(0);
}
