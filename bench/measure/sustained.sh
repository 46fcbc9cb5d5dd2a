# Sixteen sessions insert single rows as fast as they can while settling goes on:
# trades per second from the first INSERT to the last settlement.

sustain()	# RUN PEER
{
	local table left n bytes commits wal_from
	table=$(table_for "$2" trades)
	insert_script "$2" "$table" >"$work/insert.sql"
	start_peer "$2" "$table"
	hold_peer
	empty_tables "$2" "$table"
	sql -c CHECKPOINT
	wal_from=$(wal_position)
	let_peer_go
	insert_trades insert.sql -c 16 -T "$seconds"
	left=$(sql -c "SELECT count(*) FROM $table WHERE settlement_status = 'PENDING'")
	await_settled "$table"
	n=$(sql -c "SELECT count(*) FROM $table")
	read -r bytes commits < <(wal_between "$wal_from" "$(wal_position)")
	stop_peer
	figure sustained - "$2" inserted "$1" "$(transactions_per_second)"
	figure sustained - "$2" left "$1" "$(divide $((100 * left)) "$n" 0)"
	figure sustained - "$2" wal "$1" "$(divide "$bytes" "$n" 1)"
	figure sustained - "$2" commits "$1" "$(divide "$commits" "$n" 3)"
	figure sustained - "$2" rate "$1" "$(sql -c "SELECT round(count(*) / extract(epoch FROM max(settled_at) - min(executed_at))) FROM $table")"
}

measure_sustained()
{
	local run name seconds=10
	local -a names=()
	! $quick || seconds=4
	IFS=, read -ra names <<<"$peers"
	! $quick || mapfile -t names < <(by_hand)
	for ((run = 1; run <= (runs < 3 ? runs : 3); run++)); do
		for name in "${names[@]}"; do
			sustain "$run" "$name"
		done
	done
}
