# harness.sh: what the measures of bench/run share.
#
# Sourced in the private directory $work, by the unprivileged user.  A measure is a
# file bench/measure/NAME.sh with a function measure_NAME; it leaves what it found
# in $work/figures.csv, by figure().  Nothing here decides what is measured.

# ---------------------------------------------------------------- set-up

prepare()
{
	echo "== Building" >&2
	PG_CONFIG=$(copy_postgres "$work/pg" "$PG_CONFIG")
	export PG_CONFIG
	build >"$work/build.log" 2>&1 || { tail -30 "$work/build.log" >&2; exit 1; }
	# shellcheck disable=SC2046
	gcc -std=c11 -O2 -Wall -Wextra -o "$work/curl_loop" bench/limits/curl_loop.c $(pkg-config --cflags --libs libcurl)
	bin=$("$PG_CONFIG" --bindir)
	local busy
	busy=$(busy_percent 3)
	start_nginx nginx
	WALLET_URL=$NGINX_URL
	start_cluster "$work/db" <<-CONF
		shared_preload_libraries = 'settlement'
		shared_buffers = 2GB
		max_wal_size = 32GB
		checkpoint_timeout = 1h
		max_connections = 300
		settlement.enabled = off
		settlement.wallet_url = '$WALLET_URL'
	CONF
	sql -f bench/lib/schema.sql -f bench/lib/exchange.sql -f bench/limits/claim_and_finish.sql >/dev/null
	echo "section,case,peer,measure,run,value" >"$work/figures.csv"
	figure machine - - cores 1 "$(nproc)"
	figure machine - - rounds 1 "$runs"
	figure machine - - trades 1 "$trades"
	figure machine - - busy 1 "$busy"
	set_up_peers
}

# How much of the processors is used, in the next seconds, as we use none.
busy_percent()	# SECONDS
{
	{ head -1 /proc/stat; sleep "$1"; head -1 /proc/stat; } |
		awk '{ all = 0; for (i = 2; i <= 9; i++) all += $i; idle = $5 + $6 }
			NR == 1 { all0 = all; idle0 = idle } END { printf "%.1f", 100 - 100 * (idle - idle0) / (all - all0) }'
}

figure()	# SECTION CASE PEER MEASURE RUN VALUE
{
	local IFS=,
	echo "$*" >>"$work/figures.csv"
}

sql()
{
	PGOPTIONS='-c client_min_messages=error' "$bin/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h "$work/db" -U postgres -d postgres "$@"
}

divide()	# A B [DIGITS]
{
	awk -v a="$1" -v b="$2" -v d="${3-2}" 'BEGIN { printf "%.*f\n", d, (b == 0) ? 0 : a / b }'
}

set_to()	# SETTING VALUE...
{
	while [ $# -gt 0 ]; do
		sql -c "ALTER SYSTEM SET settlement.$1 = '$2'"
		shift 2
	done
	sql -c 'SELECT pg_reload_conf()' >/dev/null
}

until_is()	# QUERY VALUE
{
	local try
	for ((try = 0; try < 6000; try++)); do
		[ "$(sql -c "$1")" != "$2" ] || return 0
		sleep 0.1
	done
	die "not after ten minutes: $1 = $2"
}

# The files may go while they are read.
children_of()	# PID
{
	[ -z "$1" ] || { cat /proc/[0-9]*/stat 2>/dev/null || true; } | awk -v parent="$1" '{ sub(/\(.*\)/, "-") } $4 == parent { print $1 }'
}

# --------------------------------------------------------------- wallets

# nginx with a fixed answer, at once or after some seconds; sets NGINX_URL and
# nginx_pid, that of the process which answers.
start_nginx()	# NAME OF THE CONFIGURATION [SECONDS]
{
	local port try
	port=$(perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1")->sockport')
	sed "s|@PORT@|$port|; s|@DIR@|$work|g; s|@SECONDS@|${2-}|" "bench/lib/$1.conf" >"$work/$1.conf"
	nginx -c "$work/$1.conf" -e "$work/$1.err"
	NGINX_URL=http://127.0.0.1:$port
	for ((try = 0; try < 100; try++)); do
		nginx_pid=$(children_of "$(cat "$work/$1.pid" 2>/dev/null)")
		if [ -n "$nginx_pid" ]; then
			wallet_pid=$nginx_pid
			return 0
		fi
		sleep 0.1
	done
	die "nginx has not started; see $work/$1.err"
}

# The reference wallet, with money for every user of bench.fill().
start_walletd()
{
	start_wallet "$work" --sync off
	wallet_pid=$(<"$work/wallet.pid")
	for i in $(seq 0 999); do
		echo "{\"account\":\"user-$i\",\"currency\":\"USDT\",\"amount\":\"1000000000000000\"},{\"account\":\"user-$i\",\"currency\":\"BTC\",\"amount\":\"100000000000\"}"
	done | paste -sd, | sed 's/.*/[&]/' | curl -sS --fail -o /dev/null "$WALLET_URL/admin/accounts" --data-binary @-
	set_to wallet_url "$WALLET_URL"
}

use_nginx()
{
	WALLET_URL=$NGINX_URL wallet_pid=$nginx_pid
	set_to wallet_url "$WALLET_URL"
}

stop_walletd()
{
	stop_process "$(<"$work/wallet.pid")"
	use_nginx
}

# ------------------------------------------------- processor time, memory, WAL

# Of a process and its threads, in us.
cpu_of()	# PID
{
	local stat
	stat=$(cat "/proc/$1/stat" 2>/dev/null) || { echo 0; return; }
	# shellcheck disable=SC2086
	set -- ${stat##*) }
	echo $(((${12} + ${13}) * 10000))
}

# Lines of: kind of process, pid, time so far.  A worker of ours is a backend too.
cpu_by_kind()
{
	local kind pid
	{
		sql -F ' ' -c "SELECT CASE backend_type WHEN 'settlement worker' THEN 'worker' WHEN 'client backend' THEN 'backend'
				ELSE 'server' END, pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
		for pid in $(peer_processes); do
			echo "worker $pid"
		done
		echo "wallet $wallet_pid"
	} | while read -r kind pid; do
		echo "$kind $pid $(cpu_of "$pid")"
	done
}

wal_position()
{
	sql -c 'SELECT pg_current_wal_insert_lsn()'
}

# Record bytes without full-page images, and commits, between two positions.
wal_between()	# FROM TO
{
	[ "$1" != "$2" ] || { echo "0 0"; return; }
	"$bin/pg_waldump" -p "$work/db/data/pg_wal" -s "$1" -e "$2" --stats=record 2>/dev/null | sed 's/[[(][^])]*[])]//g' |
		awk '$1 == "Transaction/COMMIT" { n = $2 } $1 == "Total" { bytes = $3 } END { print bytes + 0, n + 0 }'
}

# The peer's process and its children; nothing for settlement.
peer_processes()
{
	[ -z "${peer_pid-}" ] || echo "$peer_pid" "$(children_of "$peer_pid")"
}

# Memory of each process that settles, but for shared buffers, in kB.
memory_of_workers()
{
	local pid pids
	pids=$(peer_processes)
	[ -n "$pids" ] || pids=$(sql -c 'SELECT pid FROM settlement.workers WHERE pid IS NOT NULL')
	for pid in $pids; do
		awk '$1 == "RssAnon:" || $1 == "RssFile:" { kb += $2 } END { print kb + 0 }' "/proc/$pid/status" 2>/dev/null || true
	done
}

start_measuring()
{
	cpu_by_kind >"$work/cpu.from"
	wal_from=$(wal_position)
}

# Figures of what was used since start_measuring, per trade.
stop_measuring()	# SECTION CASE PEER RUN TRADES
{
	local kind us bytes commits
	cpu_by_kind >"$work/cpu.to"
	while read -r kind us; do
		figure "$1" "$2" "$3" "cpu_$kind" "$4" "$us"
	done < <(awk -v n="$5" 'NR == FNR { from[$2] = $3; next } { us[$1] += $3 - from[$2] }
		END { for (k in us) printf "%s %.2f\n", k, us[k] / n }' "$work/cpu.from" "$work/cpu.to")
	read -r bytes commits < <(wal_between "$wal_from" "$(wal_position)")
	figure "$1" "$2" "$3" wal_drain "$4" "$(divide "$bytes" "$5" 1)"
	figure "$1" "$2" "$3" commits "$4" "$(divide "$commits" "$5" 4)"
	figure "$1" "$2" "$3" memory "$4" "$(memory_of_workers | awk '{ kb += $1 } END { printf "%.1f", kb / 1024 }')"
}

# ----------------------------------------------------------------- peers
#
# A peer is a directory in bench/peers with
#   setup        create its tables
#   tables       their names, emptied before each run
#   enqueue.sql  a statement that enqueues the trades of the WITH query t
#   run          work until SIGTERM
# Settlement has workers already; settlement.enabled lets them work.
#
# A peer is started, has settled some trades and is warm before anything is measured.
# It is held (stopped in its tracks, while it has no query under way) when trades are
# queued, and let go when measuring begins.

set_up_peers()
{
	local peer
	NODE=$(command -v "$ROOT"/bench/peers/node_modules/node-linux-*/bin/node || command -v node || true)
	describe_environment
	for peer in ${peers//,/ }; do
		[ -x "bench/peers/$peer/setup" ] || continue
		env "${peer_environment[@]}" "bench/peers/$peer/setup" >"$work/$peer.log" 2>&1 ||
			{ cat "$work/$peer.log" >&2; die "could not set up $peer"; }
	done
}

# Settlement and the hand-rolled worker, those of them that were asked for.
by_hand()
{
	local name
	for name in settlement node; do
		[[ ,$peers, != *,$name,* ]] || echo $name
	done
}

# What a peer's programs find in their environment, in peer_environment.
describe_environment()
{
	peer_environment=(PGHOST="$work/db" PGUSER=postgres PGDATABASE=postgres PSQL="$bin/psql" NODE="$NODE" NODE_ENV=production
		WALLET_URL="$WALLET_URL" TRADES="${trade_table-}" CONCURRENCY="${concurrency-128}"
		PROCESSES="${PROCESSES-$((($(nproc) + 1) / 2))}")
}

# The table that a peer's trades are in: ours has the trigger.
table_for()	# PEER KIND OF TABLE
{
	if [ "$1" = settlement ]; then echo "public.$2"; else echo "bench.$2"; fi
}

start_peer()	# PEER TABLE
{
	peer=$1 trade_table=$2 peer_pid=
	empty_tables "$1" "$2"
	if [ "$peer" = settlement ]; then
		set_to enabled on
	else
		describe_environment
		env "${peer_environment[@]}" "bench/peers/$peer/run" </dev/null >"$work/$peer.log" 2>&1 &
		peer_pid=$!
	fi
	queue_trades "$peer" "$trade_table" 4000
	await_settled "$trade_table"
}

peer_lives()
{
	[ -z "$peer_pid" ] || kill -0 "$peer_pid" 2>/dev/null || { cat "$work/$peer.log" >&2; die "$peer ended"; }
}

hold_peer()
{
	local try
	if [ "$peer" = settlement ]; then
		set_to enabled off
		until_is "SELECT split_part(state, ',', 1) FROM settlement.status" disabled
		return
	fi
	for ((try = 0; try < 100; try++)); do
		signal_peer STOP
		[ "$(sql -c "SELECT count(*) FROM pg_stat_activity
			WHERE backend_type = 'client backend' AND state <> 'idle' AND pid <> pg_backend_pid()")" != 0 ] || return 0
		signal_peer CONT
		sleep 0.02
	done
	die "$peer always has a query under way"
}

let_peer_go()
{
	if [ "$peer" = settlement ]; then set_to enabled on; else signal_peer CONT; fi
}

signal_peer()	# SIGNAL
{
	# shellcheck disable=SC2046
	kill -s "$1" $(peer_processes)
}

stop_peer()
{
	if [ "$peer" = settlement ]; then
		hold_peer
	else
		stop_process "$peer_pid"
	fi
	peer_pid=
}

enqueue_statement()	# PEER
{
	awk 'NR == FNR { wire = wire $0 "\n"; next } { gsub("@WIRE@", wire); print }' bench/peers/lib/wire.sql "bench/peers/$1/enqueue.sql"
}

empty_tables()	# PEER TABLE
{
	sql -c "TRUNCATE $2$([ ! -e "bench/peers/$1/tables" ] || sed 's/^/, /' "bench/peers/$1/tables")"
	settled_before=$(sql -c 'SELECT coalesce(sum(settled), 0) FROM settlement.workers')
}

# Trades with their jobs, which a peer sees all at once.
queue_trades()	# PEER TABLE N
{
	{
		echo BEGIN\;
		echo "SELECT bench.fill('$2', $3);"
		[ "$1" = settlement ] || echo "WITH t AS (SELECT * FROM $2) $(enqueue_statement "$1");"
		echo COMMIT\;
	} | sql >/dev/null
}

# As after a while of inserts, and no checkpoint to come.
fill()	# PEER TABLE N
{
	empty_tables "$1" "$2"
	sql -c CHECKPOINT
	queue_trades "$@"
	vacuum "$1" "$2"
}

vacuum()	# PEER TABLE
{
	if [ "$1" = settlement ]; then
		sql -c "VACUUM ANALYZE settlement.queue, settlement.claims, $2"
	else
		sql -c "VACUUM ANALYZE $(<"bench/peers/$1/tables"), $2"
	fi
}

# A script of pgbench that inserts one trade with its job.
insert_script()	# PEER TABLE
{
	if [ "$1" = settlement ] || [ "$1" = none ]; then
		echo "INSERT INTO $2 $(<bench/lib/trade.sql);"
	else
		echo "WITH t AS (INSERT INTO $2 $(<bench/lib/trade.sql) RETURNING *) $(enqueue_statement "$1");"
	fi
}

insert_trades()	# SCRIPT OPTION...
{
	local script=$1
	shift
	(cd "$work" && "$bin/pgbench" -n -M prepared -h "$work/db" -U postgres -j 2 -f "$script" "$@" postgres) >"$work/pgbench.out" 2>&1 ||
		{ cat "$work/pgbench.out" >&2; die "an INSERT failed"; }
}

transactions_per_second()
{
	awk '$1 == "tps" { printf "%.0f\n", $3 }' "$work/pgbench.out"
}

# Ours by the workers' counters, as a look at the table would cost them something.
number_settled()	# TABLE
{
	if [ "$peer" = settlement ]; then
		echo $(($(sql -c 'SELECT coalesce(sum(settled), 0) FROM settlement.workers') - settled_before))
	else
		sql -c "SELECT count(*) FILTER (WHERE settlement_status = 'SETTLED') FROM $1"
	fi
}

# Until all that is in the table has settled since it was empty.
await_settled()	# TABLE [COMMAND FOR EACH LOOK]
{
	local n deadline=$((SECONDS + 1800))
	n=$(sql -c "SELECT count(*) FROM $1")
	while [ "$(number_settled "$1")" -lt "$n" ]; do
		peer_lives
		[ $SECONDS -lt $deadline ] || die "$peer has not settled all after half an hour"
		${2-}
		sleep 0.4
	done
	[ "$(sql -c "SELECT count(*) FROM $1 WHERE settlement_status <> 'SETTLED' OR settlement_id IS NULL OR settled_at IS NULL")" = 0 ] ||
		die "$peer has left trades that are not settled"
}

# Trades per second, from the first to the last settled_at.
rate_of()	# TABLE
{
	sql -c "SELECT round(count(*) / extract(epoch FROM max(settled_at) - min(settled_at))) FROM $1"
}

# The same of the middle 80 %, for what takes a while to begin and to end.
middle_rate_of()	# TABLE
{
	sql -c "SELECT round(0.8 * count(*) / extract(epoch FROM percentile_disc(0.9) WITHIN GROUP (ORDER BY settled_at)
		- percentile_disc(0.1) WITHIN GROUP (ORDER BY settled_at))) FROM $1"
}
