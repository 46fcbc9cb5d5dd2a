# From INSERT to settled, at fixed rates: from the start of the inserting transaction
# to the commit of SETTLED, as PostgreSQL records it (track_commit_timestamp, which is
# on for this measure alone).  The inserting transaction's own flush is in it.

latency()	# RUN PEER RATE
{
	local table quantile ms last
	table=$(table_for "$2" trades)
	insert_script "$2" "$table" >"$work/insert.sql"
	start_peer "$2" "$table"
	# What is late at first (plans, connections) is no trade's usual wait.
	insert_trades insert.sql -c 16 -T 2 --rate "$3"
	await_settled "$table"
	last=$(sql -c "SELECT max(trade_id) FROM $table")
	insert_trades insert.sql -c 16 -T "$seconds" --rate "$3"
	await_settled "$table"
	stop_peer
	while IFS='|' read -r quantile ms; do
		figure latency "$3" "$2" "$quantile" "$1" "$ms"
	done < <(sql <<-SQL
		WITH l AS (SELECT 1000 * extract(epoch FROM pg_xact_commit_timestamp(xmin) - executed_at) AS ms FROM $table WHERE trade_id > $last),
		q AS (SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY ms) AS p, max(ms) AS max FROM l)
		SELECT unnest(ARRAY['p50', 'p99', 'max']), round(unnest(ARRAY[p[1], p[2], max])::numeric, 2) FROM q
	SQL
	)
}

restart_with_commit_timestamps()	# on|off
{
	sql -c "ALTER SYSTEM SET track_commit_timestamp = $1"
	stop_cluster "$work/db"
	"$bin/pg_ctl" -D "$work/db/data" -l "$work/db/postgresql.log" -w -t 60 start >/dev/null
}

measure_latency()
{
	local run name rate seconds=10 rates='100 1000 4000'
	local -a names=()
	IFS=, read -ra names <<<"$peers"
	if $quick; then
		seconds=4 rates=1000
		mapfile -t names < <(by_hand)
	fi
	restart_with_commit_timestamps on
	for ((run = 1; run <= (runs < 3 ? runs : 3); run++)); do
		for rate in $rates; do
			for name in "${names[@]}"; do
				latency "$run" "$name" "$rate"
			done
		done
	done
	restart_with_commit_timestamps off
}
