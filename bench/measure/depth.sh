# What claiming and finishing a trade costs a worker when ten million are queued,
# beside ten thousand.  Processor time, as it does not depend on what else runs.

# Let the workers settle at least N trades.
stretch()	# RUN QUEUED N
{
	local us
	settled_before=$(sql -c 'SELECT coalesce(sum(settled), 0) FROM settlement.workers')
	cpu_by_kind >"$work/cpu.from"
	let_peer_go
	while [ "$(number_settled)" -lt "$3" ]; do sleep 0.05; done
	hold_peer
	cpu_by_kind >"$work/cpu.to"
	us=$(awk 'NR == FNR { from[$2] = $3; next } $1 == "worker" { us += $3 - from[$2] } END { print us }' "$work/cpu.from" "$work/cpu.to")
	figure depth "$2" settlement cpu_worker "$1" "$(divide "$us" "$(number_settled)")"
}

measure_depth()
{
	local run few=10000 many=$((trades * 200))
	start_peer settlement public.trades
	hold_peer
	for ((run = 1; run <= runs; run++)); do
		fill settlement public.trades $few
		stretch "$run" $few $few
	done
	fill settlement public.trades $many
	for ((run = 1; run <= runs; run++)); do
		stretch "$run" $many $few
	done
	sql -c 'TRUNCATE settlement.queue, public.trades'
}
