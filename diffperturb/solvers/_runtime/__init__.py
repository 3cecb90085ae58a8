"""Private: calls from compiled programs to the host, worker processes, models of HiGHS."""
