"""System call names and numbers of x86-64, i386 and x32 (made by tools/make_syscalls.py, to Linux 6.17)."""

from __future__ import annotations

X32_BIT = 0x4000_0000

# name, number on x86-64, on i386, on x32 without its bit; "-" where an architecture lacks it
TABLE = """\
read 0 3 0,write 1 4 1,open 2 5 2,close 3 6 3,stat 4 106 4,fstat 5 108 5,lstat 6 107 6,poll 7 168 7,lseek 8 19 8,
mmap 9 90 9,mprotect 10 125 10,munmap 11 91 11,brk 12 45 12,rt_sigaction 13 174 512,rt_sigprocmask 14 175 14,
rt_sigreturn 15 173 513,ioctl 16 54 514,pread64 17 180 17,pwrite64 18 181 18,readv 19 145 515,writev 20 146 516,
access 21 33 21,pipe 22 42 22,select 23 82 23,sched_yield 24 158 24,mremap 25 163 25,msync 26 144 26,
mincore 27 218 27,madvise 28 219 28,shmget 29 395 29,shmat 30 397 30,shmctl 31 396 31,dup 32 41 32,dup2 33 63 33,
pause 34 29 34,nanosleep 35 162 35,getitimer 36 105 36,alarm 37 27 37,setitimer 38 104 38,getpid 39 20 39,
sendfile 40 187 40,socket 41 359 41,connect 42 362 42,accept 43 - 43,sendto 44 369 44,recvfrom 45 371 517,
sendmsg 46 370 518,recvmsg 47 372 519,shutdown 48 373 48,bind 49 361 49,listen 50 363 50,getsockname 51 367 51,
getpeername 52 368 52,socketpair 53 360 53,setsockopt 54 366 541,getsockopt 55 365 542,clone 56 120 56,fork 57 2 57,
vfork 58 190 58,execve 59 11 520,exit 60 1 60,wait4 61 114 61,kill 62 37 62,uname 63 122 63,semget 64 393 64,
semop 65 - 65,semctl 66 394 66,shmdt 67 398 67,msgget 68 399 68,msgsnd 69 400 69,msgrcv 70 401 70,msgctl 71 402 71,
fcntl 72 55 72,flock 73 143 73,fsync 74 118 74,fdatasync 75 148 75,truncate 76 92 76,ftruncate 77 93 77,
getdents 78 141 78,getcwd 79 183 79,chdir 80 12 80,fchdir 81 133 81,rename 82 38 82,mkdir 83 39 83,rmdir 84 40 84,
creat 85 8 85,link 86 9 86,unlink 87 10 87,symlink 88 83 88,readlink 89 85 89,chmod 90 15 90,fchmod 91 94 91,
chown 92 182 92,fchown 93 95 93,lchown 94 16 94,umask 95 60 95,gettimeofday 96 78 96,getrlimit 97 76 97,
getrusage 98 77 98,sysinfo 99 116 99,times 100 43 100,ptrace 101 26 521,getuid 102 24 102,syslog 103 103 103,
getgid 104 47 104,setuid 105 23 105,setgid 106 46 106,geteuid 107 49 107,getegid 108 50 108,setpgid 109 57 109,
getppid 110 64 110,getpgrp 111 65 111,setsid 112 66 112,setreuid 113 70 113,setregid 114 71 114,getgroups 115 80 115,
setgroups 116 81 116,setresuid 117 164 117,getresuid 118 165 118,setresgid 119 170 119,getresgid 120 171 120,
getpgid 121 132 121,setfsuid 122 138 122,setfsgid 123 139 123,getsid 124 147 124,capget 125 184 125,
capset 126 185 126,rt_sigpending 127 176 522,rt_sigtimedwait 128 177 523,rt_sigqueueinfo 129 178 524,
rt_sigsuspend 130 179 130,sigaltstack 131 186 525,utime 132 30 132,mknod 133 14 133,uselib 134 86 -,
personality 135 136 135,ustat 136 62 136,statfs 137 99 137,fstatfs 138 100 138,sysfs 139 135 139,
getpriority 140 96 140,setpriority 141 97 141,sched_setparam 142 154 142,sched_getparam 143 155 143,
sched_setscheduler 144 156 144,sched_getscheduler 145 157 145,sched_get_priority_max 146 159 146,
sched_get_priority_min 147 160 147,sched_rr_get_interval 148 161 148,mlock 149 150 149,munlock 150 151 150,
mlockall 151 152 151,munlockall 152 153 152,vhangup 153 111 153,modify_ldt 154 123 154,pivot_root 155 217 155,
_sysctl 156 149 -,prctl 157 172 157,arch_prctl 158 384 158,adjtimex 159 124 159,setrlimit 160 75 160,
chroot 161 61 161,sync 162 36 162,acct 163 51 163,settimeofday 164 79 164,mount 165 21 165,umount2 166 52 166,
swapon 167 87 167,swapoff 168 115 168,reboot 169 88 169,sethostname 170 74 170,setdomainname 171 121 171,
iopl 172 110 172,ioperm 173 101 173,create_module 174 127 -,init_module 175 128 175,delete_module 176 129 176,
get_kernel_syms 177 130 -,query_module 178 167 -,quotactl 179 131 179,nfsservctl 180 169 -,getpmsg 181 188 181,
putpmsg 182 189 182,afs_syscall 183 137 183,tuxcall 184 - 184,security 185 - 185,gettid 186 224 186,
readahead 187 225 187,setxattr 188 226 188,lsetxattr 189 227 189,fsetxattr 190 228 190,getxattr 191 229 191,
lgetxattr 192 230 192,fgetxattr 193 231 193,listxattr 194 232 194,llistxattr 195 233 195,flistxattr 196 234 196,
removexattr 197 235 197,lremovexattr 198 236 198,fremovexattr 199 237 199,tkill 200 238 200,time 201 13 201,
futex 202 240 202,sched_setaffinity 203 241 203,sched_getaffinity 204 242 204,set_thread_area 205 243 -,
io_setup 206 245 543,io_destroy 207 246 207,io_getevents 208 247 208,io_submit 209 248 544,io_cancel 210 249 210,
get_thread_area 211 244 -,lookup_dcookie 212 253 212,epoll_create 213 254 213,epoll_ctl_old 214 - -,
epoll_wait_old 215 - -,remap_file_pages 216 257 216,getdents64 217 220 217,set_tid_address 218 258 218,
restart_syscall 219 0 219,semtimedop 220 - 220,fadvise64 221 250 221,timer_create 222 259 526,
timer_settime 223 260 223,timer_gettime 224 261 224,timer_getoverrun 225 262 225,timer_delete 226 263 226,
clock_settime 227 264 227,clock_gettime 228 265 228,clock_getres 229 266 229,clock_nanosleep 230 267 230,
exit_group 231 252 231,epoll_wait 232 256 232,epoll_ctl 233 255 233,tgkill 234 270 234,utimes 235 271 235,
vserver 236 273 -,mbind 237 274 237,set_mempolicy 238 276 238,get_mempolicy 239 275 239,mq_open 240 277 240,
mq_unlink 241 278 241,mq_timedsend 242 279 242,mq_timedreceive 243 280 243,mq_notify 244 281 527,
mq_getsetattr 245 282 245,kexec_load 246 283 528,waitid 247 284 529,add_key 248 286 248,request_key 249 287 249,
keyctl 250 288 250,ioprio_set 251 289 251,ioprio_get 252 290 252,inotify_init 253 291 253,
inotify_add_watch 254 292 254,inotify_rm_watch 255 293 255,migrate_pages 256 294 256,openat 257 295 257,
mkdirat 258 296 258,mknodat 259 297 259,fchownat 260 298 260,futimesat 261 299 261,newfstatat 262 - 262,
unlinkat 263 301 263,renameat 264 302 264,linkat 265 303 265,symlinkat 266 304 266,readlinkat 267 305 267,
fchmodat 268 306 268,faccessat 269 307 269,pselect6 270 308 270,ppoll 271 309 271,unshare 272 310 272,
set_robust_list 273 311 530,get_robust_list 274 312 531,splice 275 313 275,tee 276 315 276,
sync_file_range 277 314 277,vmsplice 278 316 532,move_pages 279 317 533,utimensat 280 320 280,epoll_pwait 281 319 281,
signalfd 282 321 282,timerfd_create 283 322 283,eventfd 284 323 284,fallocate 285 324 285,timerfd_settime 286 325 286,
timerfd_gettime 287 326 287,accept4 288 364 288,signalfd4 289 327 289,eventfd2 290 328 290,epoll_create1 291 329 291,
dup3 292 330 292,pipe2 293 331 293,inotify_init1 294 332 294,preadv 295 333 534,pwritev 296 334 535,
rt_tgsigqueueinfo 297 335 536,perf_event_open 298 336 298,recvmmsg 299 337 537,fanotify_init 300 338 300,
fanotify_mark 301 339 301,prlimit64 302 340 302,name_to_handle_at 303 341 303,open_by_handle_at 304 342 304,
clock_adjtime 305 343 305,syncfs 306 344 306,sendmmsg 307 345 538,setns 308 346 308,getcpu 309 318 309,
process_vm_readv 310 347 539,process_vm_writev 311 348 540,kcmp 312 349 312,finit_module 313 350 313,
sched_setattr 314 351 314,sched_getattr 315 352 315,renameat2 316 353 316,seccomp 317 354 317,getrandom 318 355 318,
memfd_create 319 356 319,kexec_file_load 320 - 320,bpf 321 357 321,execveat 322 358 545,userfaultfd 323 374 323,
membarrier 324 375 324,mlock2 325 376 325,copy_file_range 326 377 326,preadv2 327 378 546,pwritev2 328 379 547,
pkey_mprotect 329 380 329,pkey_alloc 330 381 330,pkey_free 331 382 331,statx 332 383 332,io_pgetevents 333 385 333,
rseq 334 386 334,uretprobe 335 - -,uprobe 336 - -,pidfd_send_signal 424 424 424,io_uring_setup 425 425 425,
io_uring_enter 426 426 426,io_uring_register 427 427 427,open_tree 428 428 428,move_mount 429 429 429,
fsopen 430 430 430,fsconfig 431 431 431,fsmount 432 432 432,fspick 433 433 433,pidfd_open 434 434 434,
clone3 435 435 435,close_range 436 436 436,openat2 437 437 437,pidfd_getfd 438 438 438,faccessat2 439 439 439,
process_madvise 440 440 440,epoll_pwait2 441 441 441,mount_setattr 442 442 442,quotactl_fd 443 443 443,
landlock_create_ruleset 444 444 444,landlock_add_rule 445 445 445,landlock_restrict_self 446 446 446,
memfd_secret 447 447 447,process_mrelease 448 448 448,futex_waitv 449 449 449,set_mempolicy_home_node 450 450 450,
cachestat 451 451 451,fchmodat2 452 452 452,map_shadow_stack 453 453 -,futex_wake 454 454 454,futex_wait 455 455 455,
futex_requeue 456 456 456,statmount 457 457 457,listmount 458 458 458,lsm_get_self_attr 459 459 459,
lsm_set_self_attr 460 460 460,lsm_list_modules 461 461 461,mseal 462 462 462,setxattrat 463 463 463,
getxattrat 464 464 464,listxattrat 465 465 465,removexattrat 466 466 466,open_tree_attr 467 467 467,
file_getattr 468 468 468,file_setattr 469 469 469,_llseek - 140 -,_newselect - 142 -,bdflush - 134 -,break - 17 -,
chown32 - 212 -,clock_adjtime64 - 405 -,clock_getres_time64 - 406 -,clock_gettime64 - 403 -,
clock_nanosleep_time64 - 407 -,clock_settime64 - 404 -,fadvise64_64 - 272 -,fchown32 - 207 -,fcntl64 - 221 -,
fstat64 - 197 -,fstatat64 - 300 -,fstatfs64 - 269 -,ftime - 35 -,ftruncate64 - 194 -,futex_time64 - 422 -,
getegid32 - 202 -,geteuid32 - 201 -,getgid32 - 200 -,getgroups32 - 205 -,getresgid32 - 211 -,getresuid32 - 209 -,
getuid32 - 199 -,gtty - 32 -,idle - 112 -,io_pgetevents_time64 - 416 -,ipc - 117 -,lchown32 - 198 -,lock - 53 -,
lstat64 - 196 -,mmap2 - 192 -,mpx - 56 -,mq_timedreceive_time64 - 419 -,mq_timedsend_time64 - 418 -,nice - 34 -,
oldfstat - 28 -,oldlstat - 84 -,oldolduname - 59 -,oldstat - 18 -,olduname - 109 -,ppoll_time64 - 414 -,prof - 44 -,
profil - 98 -,pselect6_time64 - 413 -,readdir - 89 -,recvmmsg_time64 - 417 -,rt_sigtimedwait_time64 - 421 -,
sched_rr_get_interval_time64 - 423 -,semtimedop_time64 - 420 -,sendfile64 - 239 -,setfsgid32 - 216 -,
setfsuid32 - 215 -,setgid32 - 214 -,setgroups32 - 206 -,setregid32 - 204 -,setresgid32 - 210 -,setresuid32 - 208 -,
setreuid32 - 203 -,setuid32 - 213 -,sgetmask - 68 -,sigaction - 67 -,signal - 48 -,sigpending - 73 -,
sigprocmask - 126 -,sigreturn - 119 -,sigsuspend - 72 -,socketcall - 102 -,ssetmask - 69 -,stat64 - 195 -,
statfs64 - 268 -,stime - 25 -,stty - 31 -,timer_gettime64 - 408 -,timer_settime64 - 409 -,timerfd_gettime64 - 410 -,
timerfd_settime64 - 411 -,truncate64 - 193 -,ugetrlimit - 191 -,ulimit - 58 -,umount - 22 -,utimensat_time64 - 412 -,
vm86 - 166 -,vm86old - 113 -,waitpid - 7 -,
"""


def numbers() -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Give name -> number for x86-64, i386 and x32 (with its bit)."""
    native: dict[str, int] = {}
    i386: dict[str, int] = {}
    x32: dict[str, int] = {}
    for entry in TABLE.replace("\n", "").rstrip(",").split(","):
        name, first, second, third = entry.split(" ")
        if first != "-":
            native[name] = int(first)
        if second != "-":
            i386[name] = int(second)
        if third != "-":
            x32[name] = int(third) | X32_BIT
    return native, i386, x32


def name_of(number: int) -> str:
    """Give the name of an x86-64 system call, or its number as text."""
    for name, value in numbers()[0].items():
        if value == number:
            return name
    return str(number)
