# How fast queued trades settle, and what a trade costs: processor time by process,
# WAL, commits, memory.

# Bytes of WAL per trade that the INSERT of the trades alone takes.
measure_plain_wal()	# CASE KIND OF TABLE RUN
{
	local from
	sql -c "TRUNCATE bench.$2"
	from=$(wal_position)
	sql -c "SELECT bench.fill('bench.$2', $trades)" >/dev/null
	read -r bytes _ < <(wal_between "$from" "$(wal_position)")
	figure drain "$1" - wal_insert "$3" "$(divide "$bytes" "$trades" 1)"
}

# settlement-256 is ours with the concurrency that docs/operations.md recommends for
# a queue that comes in bursts.
drain()	# CASE KIND OF TABLE RUN PEER
{
	local from bytes table name=${4%-256}
	[ "$4" = "$name" ] || set_to concurrency 256
	table=$(table_for "$name" "$2")
	start_peer "$name" "$table"
	hold_peer
	from=$(wal_position)
	fill "$name" "$table" "$trades"
	read -r bytes _ < <(wal_between "$from" "$(wal_position)")
	figure drain "$1" "$4" wal_fill "$3" "$(divide "$bytes" "$trades" 1)"
	start_measuring
	let_peer_go
	await_settled "$table"
	stop_measuring drain "$1" "$4" "$3" "$trades"
	stop_peer
	[ "$4" = "$name" ] || set_to concurrency 64
	figure drain "$1" "$4" rate "$3" "$(rate_of "$table")"
	echo "$1 $4 $(rate_of "$table")/s" >&2
}

drain_in_turn()	# CASE KIND OF TABLE PEER...
{
	local case=$1 kind=$2 run peer_name
	shift 2
	for ((run = 1; run <= runs; run++)); do
		if [ "$case" = plain ] && [[ ,$sections, == *,limits,* ]]; then
			limits_round "$run"
		fi
		measure_plain_wal "$case" "$kind" "$run"
		for peer_name; do
			# The slow ones, once in a quick run.
			if $quick && [ "$run" -gt 1 ] && [[ $peer_name != settlement* && $peer_name != node ]]; then
				continue
			fi
			drain "$case" "$kind" "$run" "$peer_name"
		done
	done
}

# Of PEER...
with_ours_for_bursts()
{
	local name
	for name; do
		echo "$name"
		[ "$name" != settlement ] || echo settlement-256
	done
}

measure_drain()
{
	local fillfactor
	. bench/measure/limits.sh
	# shellcheck disable=SC2046,SC2086
	drain_in_turn plain trades $(with_ours_for_bursts ${peers//,/ })
	! $quick || return 0
	start_walletd
	# shellcheck disable=SC2046,SC2086
	drain_in_turn walletd trades $(with_ours_for_bursts ${peers//,/ })
	stop_walletd
	for fillfactor in 40 100; do
		sql -c "CALL bench.set_fillfactor($fillfactor)"
		# shellcheck disable=SC2046
		drain_in_turn "exchange-$fillfactor" exchange $(with_ours_for_bursts $(by_hand))
	done
}
