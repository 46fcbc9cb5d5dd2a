# What workers with nothing to do cost: wake-ups per second of the busiest, and
# processor time of all, over ten seconds.

switches_of()	# PID
{
	awk '$1 == "voluntary_ctxt_switches:" { print $2 }' "/proc/$1/status"
}

measure_idle()
{
	local run pid seconds=10
	local -A switches=() time=()
	set_to enabled on
	sleep 5
	for ((run = 1; run <= (runs < 3 ? runs : 3); run++)); do
		for pid in $(sql -c 'SELECT pid FROM settlement.workers WHERE pid IS NOT NULL'); do
			switches[$pid]=$(switches_of "$pid") time[$pid]=$(cpu_of "$pid")
		done
		sleep $seconds
		for pid in "${!switches[@]}"; do
			figure idle - settlement wakeups "$run" "$(divide $(($(switches_of "$pid") - switches[$pid])) $seconds 1)"
			figure idle - settlement cpu_percent "$run" "$(divide $(($(cpu_of "$pid") - time[$pid])) $((seconds * 10000)) 3)"
		done
	done
	set_to enabled off
	until_is "SELECT split_part(state, ',', 1) FROM settlement.status" disabled
}
