# The limits of the machine: the wallet asked by wrk, a loop that does nothing but
# ask it by libcurl, the writes in the database without a wallet, one flush.
# Their sum per trade is what no settling can be faster than.  Each round of them is
# made beside a round of the drain that is compared with it, if that is measured.

limit()	# MEASURE VALUE, of round $run
{
	figure limits - - "$1" "$run" "$2"
}

limit_wrk()
{
	wrk -t1 -c64 -d"${seconds}s" -s bench/limits/post.lua "$NGINX_URL/api/wallets/settle" >"$work/wrk.out"
	! grep -q Non-2xx "$work/wrk.out" || die "the wallet refused wrk's requests"
	limit wrk "$(awk '/^Requests\/sec/ { printf "%.0f", $2 }' "$work/wrk.out")"
}

limit_curl()
{
	local from rate us
	from=$(cpu_of "$nginx_pid")
	read -r rate us < <("$work/curl_loop" "$NGINX_URL/api/wallets/settle" 64 "$seconds")
	limit curl "$rate"
	limit curl_cpu "$us"
	limit wallet_cpu "$(divide $(($(cpu_of "$nginx_pid") - from)) $((rate * seconds)))"
}

# One session, in batches of as many as a worker of ours has in flight.
limit_sql()
{
	local us elapsed
	fill settlement public.trades "$trades"
	read -r us elapsed < <(sql <<-'SQL'
		CALL bench.claim_and_finish(64);
		SELECT pg_backend_pid() AS pid, extract(epoch FROM max(settled_at) - min(settled_at)) AS elapsed FROM public.trades \gset
		\setenv PID :pid
		\setenv ELAPSED :elapsed
		\! awk '{ sub(/.*\) /, ""); print ($12 + $13) * 10000, ENVIRON["ELAPSED"] }' /proc/$PID/stat
	SQL
	)
	limit sql "$(divide "$trades" "$elapsed" 0)"
	limit sql_cpu "$(divide "$us" "$trades")"
}

limit_flush()
{
	local out
	out=$(LC_ALL=C dd if=/dev/zero of="$work/db/flush" bs=8k count=500 oflag=dsync conv=notrunc 2>&1 | tail -1)
	limit flush_us "$(awk -F', ' '{ sub(/ s$/, "", $(NF - 1)); printf "%.0f", $(NF - 1) * 1e6 / 500 }' <<<"$out")"
	echo "SELECT pg_logical_emit_message(true, '', '');" >"$work/commit.sql"
	insert_trades commit.sql -c 1 -j 1 -T "$seconds"
	limit commit_us "$(awk '/^latency average/ { printf "%.0f", $4 * 1000 }' "$work/pgbench.out")"
}

limits_round()	# RUN
{
	local run=$1 seconds=3
	! $quick || seconds=1
	[ -e "$work/db/flush" ] || dd if=/dev/zero of="$work/db/flush" bs=8k count=500 conv=fsync 2>/dev/null
	limit_wrk
	limit_curl
	limit_sql
	limit_flush
	sql -c 'TRUNCATE public.trades'
}

measure_limits()
{
	local run
	[[ ,$sections, != *,drain,* ]] || return 0
	for ((run = 1; run <= runs; run++)); do
		limits_round "$run"
	done
}
