# Rate with a wallet that takes 50 ms for each request, over the number of requests
# in flight.  One worker of ours, one process of the hand-rolled one; the most that
# can be had is that number divided by the wallet's time.

slow_drain()	# RUN PEER IN FLIGHT
{
	local table
	table=$(table_for "$2" trades)
	concurrency=$3
	[ "$2" != settlement ] || set_to concurrency "$3"
	start_peer "$2" "$table"
	hold_peer
	# About four seconds at the most that can be had.
	fill "$2" "$table" $(($3 * 80))
	start_measuring
	let_peer_go
	await_settled "$table"
	stop_measuring concurrency "$3" "$2" "$1" $(($3 * 80))
	stop_peer
	figure concurrency "$3" "$2" rate "$1" "$(middle_rate_of "$table")"
}

use_workers()	# N
{
	set_to workers "$1"
	until_is 'SELECT count(*) FROM settlement.workers WHERE pid IS NOT NULL' "$1"
}

measure_concurrency()
{
	local run name in_flight concurrency url=$NGINX_URL pid=$nginx_pid
	start_nginx nginx-slow 0.05
	use_nginx
	use_workers 1
	PROCESSES=1
	for ((run = 1; run <= (runs < 3 ? runs : 3); run++)); do
		for in_flight in 64 125 250 500 1000; do
			for name in $(by_hand); do
				slow_drain "$run" "$name" "$in_flight"
			done
		done
	done
	kill "$(<"$work/nginx-slow.pid")"
	NGINX_URL=$url nginx_pid=$pid
	use_nginx
	use_workers 2
	unset PROCESSES
	set_to concurrency 64
}
