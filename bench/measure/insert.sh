# What the trigger costs an INSERT: sixteen sessions insert single rows, in turn
# without a trigger, with ours, and with a row for the hand-rolled worker.  Nothing
# settles meanwhile.

insert_only()	# RUN CASE PEER TABLE
{
	local from
	empty_tables "$3" "$4"
	insert_script "$3" "$4" >"$work/insert.sql"
	sql -c CHECKPOINT
	from=$(wal_position)
	insert_trades insert.sql -c 16 -T "$seconds"
	read -r bytes _ < <(wal_between "$from" "$(wal_position)")
	figure insert "$2" - rate "$1" "$(transactions_per_second)"
	figure insert "$2" - wal "$1" "$(divide "$bytes" "$(sql -c "SELECT count(*) FROM $4")" 1)"
}

measure_insert()
{
	local run seconds=8
	! $quick || seconds=3
	for ((run = 1; run <= runs; run++)); do
		insert_only "$run" "no trigger" none bench.trades
		insert_only "$run" "the extension's trigger" settlement public.trades
		sql -c 'TRUNCATE settlement.queue'
		[[ ,$peers, != *,node,* ]] || insert_only "$run" "a row for the hand-rolled worker" node bench.trades
	done
	sql -c 'TRUNCATE public.trades'
}
