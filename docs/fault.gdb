# Follows the first store of a program to a missing page, from the trap to the table entry and back. docs/debugging.md explains
# each step. Run it on a kernel built with --debug, on one CPU, with a debugger attached before the first instruction.
set pagination off
set confirm off
set language c

# walk ADDRESS: prints the table entries of a user address, read through the kernel's direct map; $entry is the last one.
define walk
  set $table = $TTBR0_EL1 & 0xfffffffff000
  set $shift = 39
  while $shift >= 12
    set $entry = (unsigned long *) (0xffff000000000000 + $table + (($arg0 >> $shift) & 511) * 8)
    printf "bits %d to %d: the entry at %#lx is %#lx\n", $shift, $shift + 8, $entry, *$entry
    set $table = *$entry & 0xfffffffff000
    set $shift = (*$entry & 1) ? $shift - 9 : 0
  end
end

# A data abort from EL0 (class 0x24) caused by a write (bit 6).
break *trap_from_user if (esr >> 26) == 0x24 && (esr & 0x40) != 0
continue
set $address = far
set $store = frame->pc
printf "the store at %#lx to %#lx faults\n", $store, $address
x/i $store
walk $address

# Stop when the entry is written.
watch *$entry
continue
backtrace 12
delete

# The program repeats the store.
tbreak *$store
continue
stepi
printf "the word at %#lx is %#lx\n", $address, *(unsigned long *) $address
