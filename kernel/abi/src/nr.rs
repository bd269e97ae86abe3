//! System-call numbers: Linux's generic 64-bit table, then Quire's own range.

macro_rules! numbers {
    ($($name:ident = $value:expr;)*) => {
        $(#[doc = concat!("`", stringify!($name), "`")] pub const $name: usize = $value;)*

        /// All of them.
        pub const ALL: &[usize] = &[$($name),*];
    };
}

/// Linux's call numbers are below this.
pub const LINUX_END: usize = 512;

/// The first of Quire's own call numbers.
pub const QUIRE_BASE: usize = 0x1000;

/// Room for Quire's own call numbers.
pub const QUIRE_COUNT: usize = 64;

numbers! {
    GETCWD = 17;
    EVENTFD2 = 19;
    EPOLL_CREATE1 = 20;
    EPOLL_CTL = 21;
    EPOLL_PWAIT = 22;
    DUP = 23;
    DUP3 = 24;
    FCNTL = 25;
    IOCTL = 29;
    FTRUNCATE = 46;
    FALLOCATE = 47;
    FACCESSAT = 48;
    CHDIR = 49;
    FCHMOD = 52;
    FCHOWN = 55;
    OPENAT = 56;
    CLOSE = 57;
    PIPE2 = 59;
    GETDENTS64 = 61;
    LSEEK = 62;
    READ = 63;
    WRITE = 64;
    READV = 65;
    WRITEV = 66;
    PREAD64 = 67;
    PWRITE64 = 68;
    PREADV = 69;
    PWRITEV = 70;
    SENDFILE = 71;
    PSELECT6 = 72;
    PPOLL = 73;
    SIGNALFD4 = 74;
    READLINKAT = 78;
    NEWFSTATAT = 79;
    FSTAT = 80;
    TIMERFD_CREATE = 85;
    TIMERFD_SETTIME = 86;
    TIMERFD_GETTIME = 87;
    PERSONALITY = 92;
    EXIT = 93;
    EXIT_GROUP = 94;
    WAITID = 95;
    SET_TID_ADDRESS = 96;
    FUTEX = 98;
    SET_ROBUST_LIST = 99;
    GET_ROBUST_LIST = 100;
    NANOSLEEP = 101;
    GETITIMER = 102;
    SETITIMER = 103;
    CLOCK_SETTIME = 112;
    CLOCK_GETTIME = 113;
    CLOCK_GETRES = 114;
    CLOCK_NANOSLEEP = 115;
    SYSLOG = 116;
    SCHED_SETAFFINITY = 122;
    SCHED_GETAFFINITY = 123;
    SCHED_YIELD = 124;
    RESTART_SYSCALL = 128;
    KILL = 129;
    TKILL = 130;
    TGKILL = 131;
    SIGALTSTACK = 132;
    RT_SIGSUSPEND = 133;
    RT_SIGACTION = 134;
    RT_SIGPROCMASK = 135;
    RT_SIGPENDING = 136;
    RT_SIGTIMEDWAIT = 137;
    RT_SIGQUEUEINFO = 138;
    RT_SIGRETURN = 139;
    REBOOT = 142;
    SETREGID = 143;
    SETGID = 144;
    SETREUID = 145;
    SETUID = 146;
    SETRESUID = 147;
    GETRESUID = 148;
    SETRESGID = 149;
    GETRESGID = 150;
    SETFSUID = 151;
    SETFSGID = 152;
    TIMES = 153;
    SETPGID = 154;
    GETPGID = 155;
    GETSID = 156;
    SETSID = 157;
    GETGROUPS = 158;
    SETGROUPS = 159;
    UNAME = 160;
    SETHOSTNAME = 161;
    SETDOMAINNAME = 162;
    GETRLIMIT = 163;
    SETRLIMIT = 164;
    GETRUSAGE = 165;
    PRCTL = 167;
    GETCPU = 168;
    GETTIMEOFDAY = 169;
    SETTIMEOFDAY = 170;
    GETPID = 172;
    GETPPID = 173;
    GETUID = 174;
    GETEUID = 175;
    GETGID = 176;
    GETEGID = 177;
    GETTID = 178;
    SYSINFO = 179;
    READAHEAD = 213;
    BRK = 214;
    MUNMAP = 215;
    MREMAP = 216;
    CLONE = 220;
    EXECVE = 221;
    MMAP = 222;
    FADVISE64 = 223;
    MPROTECT = 226;
    MSYNC = 227;
    MLOCK = 228;
    MUNLOCK = 229;
    MLOCKALL = 230;
    MUNLOCKALL = 231;
    MINCORE = 232;
    MADVISE = 233;
    RT_TGSIGQUEUEINFO = 240;
    WAIT4 = 260;
    PRLIMIT64 = 261;
    GETRANDOM = 278;
    MEMFD_CREATE = 279;
    EXECVEAT = 281;
    MEMBARRIER = 283;
    MLOCK2 = 284;
    COPY_FILE_RANGE = 285;
    PREADV2 = 286;
    PWRITEV2 = 287;
    RSEQ = 293;
    PIDFD_SEND_SIGNAL = 424;
    PIDFD_OPEN = 434;
    CLONE3 = 435;
    CLOSE_RANGE = 436;
    PIDFD_GETFD = 438;
    FACCESSAT2 = 439;
    EPOLL_PWAIT2 = 441;

    QUIRE_INFO = QUIRE_BASE;
    QUIRE_LOG = QUIRE_BASE + 1;
    QUIRE_POWEROFF = QUIRE_BASE + 2;
    QUIRE_BOOKS = QUIRE_BASE + 3;
    QUIRE_AUDIT = QUIRE_BASE + 4;
    QUIRE_SETTING = QUIRE_BASE + 5;
    QUIRE_FAIL_NTH = QUIRE_BASE + 6;
    QUIRE_CMA_TRY = QUIRE_BASE + 7;
    QUIRE_GRANT = QUIRE_BASE + 8;
    QUIRE_ENDPOINT = QUIRE_BASE + 9;
    QUIRE_MINT = QUIRE_BASE + 10;
    QUIRE_CALL = QUIRE_BASE + 11;
    QUIRE_RECEIVE = QUIRE_BASE + 12;
    QUIRE_REPLY = QUIRE_BASE + 13;
    QUIRE_REPLY_RECEIVE = QUIRE_BASE + 14;
    QUIRE_SAVE = QUIRE_BASE + 15;
    QUIRE_SIGNAL = QUIRE_BASE + 16;
    QUIRE_CLOSE = QUIRE_BASE + 17;
    QUIRE_COPY = QUIRE_BASE + 18;
    QUIRE_ACCEPT = QUIRE_BASE + 19;
    QUIRE_CALLER = QUIRE_BASE + 20;
    QUIRE_READ_WINDOW = QUIRE_BASE + 21;
    QUIRE_WRITE_WINDOW = QUIRE_BASE + 22;
}
