# A million trades: alone, under a transaction that holds its snapshot all the time,
# and beside a million rows that are deferred, paused, or dead.  Memory of the worker
# after a quarter of the trades and at the end.

note_memory()
{
	memory_of_workers | sort -n | tail -1 >>"$work/memory"
}

a_million()	# RUN CASE
{
	local holder=
	[ "$2" = none ] || [ "$2" = snapshot ] || sql -c "CALL bench.put_aside('$2', $many)"
	[ "$2" = none ] || sql -c 'VACUUM ANALYZE settlement.deferred, settlement.dlq'
	start_peer settlement public.trades
	hold_peer
	fill settlement public.trades "$many"
	if [ "$2" = snapshot ]; then
		"$bin/psql" -X -q -h "$work/db" -U postgres -d postgres -c 'BEGIN ISOLATION LEVEL REPEATABLE READ' \
			-c 'SELECT count(*) FROM settlement.queue' -c 'SELECT pg_sleep(3600)' >/dev/null 2>&1 &
		holder=$!
		until_is "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(3600)' AND backend_xmin IS NOT NULL" 1
	fi
	: >"$work/memory"
	let_peer_go
	await_settled public.trades note_memory
	stop_peer
	if [ -n "$holder" ]; then
		sql -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(3600)'" >/dev/null
		wait "$holder" 2>/dev/null || true
	fi
	figure million "$2" settlement rate "$1" "$(rate_of public.trades)"
	figure million "$2" settlement memory_quarter "$1" "$(awk '{ v[NR] = $1 } END { printf "%.1f", v[int((NR + 3) / 4)] / 1024 }' "$work/memory")"
	figure million "$2" settlement memory_end "$1" "$(awk 'END { printf "%.1f", $1 / 1024 }' "$work/memory")"
	sql -c 'CALL bench.take_away()'
}

measure_million()
{
	local run case many=$((trades * 20))
	sql -f bench/lib/aside.sql
	for ((run = 1; run <= (runs < 3 ? runs : 3); run++)); do
		for case in none snapshot deferred paused dead; do
			a_million "$run" "$case"
			echo "million $case done" >&2
		done
	done
	sql -c 'TRUNCATE public.trades'
}
