#!/usr/bin/perl
# What cannot be made to happen from outside: no space left, no memory left, and
# bytes of a trade or of a reply that crash the worker.  A library preloaded into
# the server (test/lib/faults.c) does it when the test says so.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use File::Temp qw(tempdir);
use Test::More;

plan skip_all => 'the sanitizers have the allocator' if $ENV{SETTLEMENT_SANITIZE};

my $dir = tempdir(CLEANUP => 1);
my $wishes = "$dir/wishes";

# As faults.c has it; what is not named is not wished.
sub wish
{
	my (%wish) = (full => '', memory_pid => 0, memory_every => 1, memory_min => 0, memory_max => 0, divide_pid => 0,
		stuck_pid => 0, @_);
	open my $out, '+<:raw', $wishes or die $!;
	syswrite $out, pack 'a32 l7', @wish{qw(full memory_pid memory_every memory_min memory_max divide_pid)}, 0, $wish{stuck_pid};
}
sub injected
{
	open my $in, '<:raw', $wishes or die $!;
	sysread $in, my $bytes, 60;
	return (unpack 'a32 l7', $bytes)[6];
}
PostgreSQL::Test::Utils::append_to_file($wishes, "\0" x 60);
system('gcc', '-O1', '-Wall', '-Wextra', '-Werror', '-shared', '-fPIC', '-o', "$dir/faults.so",
	"$FindBin::Bin/../lib/faults.c", '-ldl') == 0 or die 'faults.c does not build';
$ENV{SETTLEMENT_FAULTS} = $wishes;
$ENV{LD_PRELOAD} = "$dir/faults.so";

my $s = Settlement->start(conf => <<'CONF');
settlement.request_timeout = '3s'
settlement.retry_initial_backoff = '20ms'
settlement.breaker_initial_open = '20ms'
settlement.breaker_max_open = '100ms'
settlement.poll_interval = '200ms'
CONF
my $node = $s->node;

# After several crashes in a row the server waits before it starts workers again;
# a scenario does not pay for those of the last one.
sub start_afresh { $node->restart; $s->wait_for_workers(2) }

# Trades that are in flight beside a poisonous one all the time.
sub innocents
{
	my ($name) = @_;
	return { match => { trade_id_prefix => $name }, action => 'hang', apply => \1, ms => 60000 };
}

# It has crashed three workers and is set aside; the others were there each time.
sub poison_is_set_aside
{
	my ($poison, $status, $innocents, $crashes) = @_;
	$crashes //= 3;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	start_afresh();
	my $log = -s $node->logfile;
	# the crash may also end the session that has just committed
	$s->try_sql("SELECT public.put('$innocents', 4), public.put('$poison'), public.put('$innocents', 8, 5)");
	$s->dead_letter_is($poison, $status, 'three crashes, and it is dead');
	is($s->sql("SELECT crashes FROM settlement.dlq WHERE trade_id = '$poison'"), 3, 'which it alone is blamed for:');
	$s->becomes("SELECT count(*), max(crashes), max(charged) FROM (SELECT trade_id, crashes, charged FROM settlement.queue
		UNION ALL SELECT trade_id, crashes, charged FROM settlement.deferred) x WHERE trade_id LIKE '$innocents%'", '8|0|0', 'the others count none, and are charged nothing');
	my $times = () = PostgreSQL::Test::Utils::slurp_file($node->logfile, $log) =~ /was terminated by signal 9/g;
	is($times, $crashes, "the server crashed $crashes times");
	$s->wait_for_workers(2);
	$s->faults;
	$s->settled_is($innocents, 8, 'the others settle');
}

scenario a_request_that_crashes_its_worker => sub {
	$s->faults(innocents('beside-request'));
	poison_is_set_aside('kill-the-sender', 'UNKNOWN worker_crash - 3', 'beside-request');
	is($s->effects_of('kill-the-sender'), 0, 'the wallet has never seen it');
	$s->sql("SELECT settlement.resolve('kill-the-sender', 'FAILED', 'ticket 1', 'it was never sent')");
	$s->sql("SELECT settlement.dlq_purge(all_rows => true, dry_run => false, reason => 'it was never sent')");
	$s->at_rest;
	$s->ledgers_are_equal;
};

scenario a_reply_that_crashes_its_worker => sub {
	$s->faults({ match => { trade_id => 'replied' }, action => 'status', status => 200, apply => \1, body => { success => \1, message => 'kill-the-reader' } },
		innocents('beside-reply'));
	poison_is_set_aside('replied', 'UNKNOWN worker_crash - 3', 'beside-reply');
	is($s->effects_of('replied'), 1, 'the wallet has booked it, once');
	$s->sql("SELECT settlement.redrive('replied', 'the reply can be read now')");
	$s->status_is('replied', 'SETTLED');
	$s->at_rest;
	$s->ledgers_are_equal;
};

# In a batch nobody knows whose bytes they were: nobody is blamed, and after it
# each goes alone.
scenario a_batch_that_crashes_its_worker => sub {
	$s->set(batch_size => 20);
	$s->faults(innocents('beside-batch'));
	poison_is_set_aside('batch-kill-the-sender', 'UNKNOWN worker_crash - 4', 'beside-batch', 4);
	is($s->effects_of('batch-kill-the-sender'), 0, 'the wallet has never seen it');
	$s->sql("SELECT settlement.resolve('batch-kill-the-sender', 'FAILED', 'ticket 2', 'it was never sent')");
	$s->sql("SELECT settlement.dlq_purge(all_rows => true, dry_run => false, reason => 'it was never sent')");
	$s->at_rest;
	$s->ledgers_are_equal;
};

scenario a_reply_to_a_batch_that_crashes_its_worker => sub {
	$s->faults({ match => { trade_id => 'batch-replied' }, action => 'status', status => 200, apply => \1, body => { success => \1, message => 'kill-the-reader' } },
		{ match => { path => 'batch' }, action => 'pass', reply_delay_ms => 100 });
	start_afresh();
	my $log = -s $node->logfile;
	$s->try_sql("SELECT public.put('beside-replied', 4), public.put('batch-replied'), public.put('beside-replied', 8, 5)");
	$s->dead_letter_is('batch-replied', 'UNKNOWN worker_crash - 4', 'four crashes, and it is dead');
	is($s->sql("SELECT crashes FROM settlement.dlq WHERE trade_id = 'batch-replied'"), 3, 'of which that of the batch is nobody\'s');
	my $times = () = PostgreSQL::Test::Utils::slurp_file($node->logfile, $log) =~ /was terminated by signal 9/g;
	is($times, 4, 'the server crashed four times');
	$s->wait_for_workers(2);
	$s->settled_is('beside-replied', 8, 'the others settle');
	is($s->effects_of('batch-replied'), 1, 'the wallet has booked it, once');
	$s->faults;
	$s->sql("SELECT settlement.redrive('batch-replied', 'the reply can be read now')");
	$s->status_is('batch-replied', 'SETTLED');
	$s->at_rest;
	$s->ledgers_are_equal;
	$s->reset('batch_size');
};

# The reply cannot be recorded: the server crashes, and crashes in its recovery, until there is space.
scenario no_space_for_wal => sub {
	start_afresh();
	$s->faults({ match => { trade_id_prefix => 'wal', times => 1 }, action => 'pass', reply_delay_ms => 600 });
	my ($booked, $log) = ($s->effects, -s $node->logfile);
	$s->trades('wal', 20);
	wait_for(sub { $s->effects >= $booked + 20 }, 'the wallet to book them');
	wish(full => '/pg_wal/');
	wait_for(sub { 3 <= (() = PostgreSQL::Test::Utils::slurp_file($node->logfile, $log) =~ /PANIC:.*No space left on device/g) }, 'the server to crash');
	wish();
	$s->becomes('SELECT 1', 1, 'it comes back when there is space');
	$s->settled_is('wal', 20, 'all settle');
	is($s->effects - $booked, 20, 'one effect of each');
	$s->wait_for_workers(2);
	$s->faults;
	$s->at_rest;
	$s->ledgers_are_equal;
};

# Nothing can be added to the tables: what the wallet says is kept until it can.
scenario no_space_for_tables => sub {
	start_afresh();
	$s->faults({ match => { trade_id_prefix => 'table' }, action => 'pass', reply_delay_ms => 600 });
	my ($booked, $requests, $failures) = ($s->effects, $s->requests, $s->metric('turn_aborts') + $s->metric('apply_failures'));
	$s->trades('table', 120);
	wait_for(sub { $s->effects >= $booked + 64 }, 'the wallet to book them');
	wish(full => '/base/');
	$s->becomes("SELECT sum(value) > $failures FROM settlement.metrics WHERE name IN ('turn_aborts', 'apply_failures')", 't', 'outcomes cannot be written');
	wish();
	$s->settled_is('table', 120, 'all settle when there is space again');
	is($s->requests - $requests, 120, 'nothing was sent again');
	is($s->effects - $booked, 120, 'one effect of each');
	$s->faults;
	$s->at_rest;
	$s->ledgers_are_equal;
};

# The claim cannot be written: nothing is sent meanwhile, and whoever looks is told why.
scenario a_disk_that_does_not_answer => sub {
	start_afresh();
	$s->set(workers => 1);
	$s->wait_for_workers(1);
	my ($pid) = $s->worker_pids;
	my $requests = $s->requests;
	wish(stuck_pid => $pid);
	$s->trade('stuck');
	$s->becomes('SELECT phase, waits_for FROM settlement.in_flight', 'sending|disk', 'in_flight says that its worker waits for the disk');
	is($s->sql("SELECT waits_for FROM settlement.workers WHERE pid = $pid"), 'disk', 'workers says so too');
	like($s->sql("SELECT settlement.explain('stuck')"), qr/the request has not left yet; the worker waits for: disk/, 'and explain()');
	is($s->requests, $requests, 'nothing is sent');
	wish();
	$s->status_is('stuck', 'SETTLED');
	$s->reset('workers');
	$s->wait_for_workers(2);
	$s->at_rest;
	$s->ledgers_are_equal;
};

# The server makes an error of a signal; what libcurl was doing then, nobody knows.
scenario a_division_by_zero_in_the_http_library => sub {
	my ($booked, $log) = ($s->effects, -s $node->logfile);
	$s->set(workers => 1);
	$s->wait_for_workers(1);
	my ($pid) = $s->worker_pids;
	wish(divide_pid => $pid);
	$s->trades('divided', 20);
	$s->settled_is('divided', 20);
	isnt(($s->worker_pids)[0], $pid, 'by another worker');
	like(PostgreSQL::Test::Utils::slurp_file($node->logfile, $log), qr/FATAL:  settlement worker gives up after an error within the HTTP library/, 'since that one gave up');
	wish();
	$s->reset('workers');
	$s->wait_for_workers(2);
	is($s->effects - $booked, 20, 'one effect of each');
	$s->at_rest;
	$s->ledgers_are_equal;
};

# Allocations fail here and there, in the server and in the libraries that it
# uses, while a worker sends and reads replies.
scenario no_memory => sub {
	my ($booked, $log) = ($s->effects, -s $node->logfile);
	my ($n, $total) = (0, 0);
	$s->set(workers => 1);
	$s->wait_for_workers(1);
	for my $every (2000, 300, 40, 7)
	{
		my ($pid) = $s->worker_pids;
		wish(memory_pid => $pid, memory_every => $every);
		$s->trades('memory-' . ++$n, 200);
		wait_for(sub { injected() >= 5 || !kill 0, $pid }, "every ${every}th allocation to fail");
		$total += injected();
		wish();
		$s->settled_is("memory-$n", 200, "200 settle, of which some met failures (every ${every}th)");
	}
	cmp_ok($total, '>', 0, "$total allocations failed");
	is($s->effects - $booked, $n * 200, 'one effect of each');
	unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile, $log), qr/PANIC|terminated by signal/, 'nothing crashed');
	$s->at_rest;
	$s->ledgers_are_equal;
	$s->reset('workers');
};

# The texts of one trade are more than there is memory for: it is tried again, and
# nothing half made is left for that.
scenario no_memory_for_the_texts_of_a_trade => sub {
	my $log = -s $node->logfile;
	$s->sql(<<'SQL');
SET ROLE exchange;
CREATE TABLE public.remarked (LIKE public.trades INCLUDING DEFAULTS);
ALTER TABLE public.remarked ADD COLUMN remark text, ADD PRIMARY KEY (trade_id, remark);
RESET ROLE;
SELECT settlement.attach('public.remarked');
SQL
	my $columns = 'trade_id, symbol, buyer_user_id, seller_user_id, price, quantity, buyer_fee, seller_fee, settlement_status, settlement_id, settlement_attempts';
	$s->witness_trades("SELECT $columns FROM public.trades UNION ALL SELECT $columns FROM public.remarked");
	$s->set(workers => 1);
	$s->wait_for_workers(1);
	my ($pid) = $s->worker_pids;
	# the server asks for powers of two, or for what is larger than 8 kB as it is
	wish(memory_pid => $pid, memory_min => 8600, memory_max => 9500);
	$s->sql(<<'SQL');
INSERT INTO public.remarked (trade_id, symbol, buy_order_id, sell_order_id, buyer_user_id, seller_user_id, price, quantity, remark)
VALUES ('remarked', 'BTC/USDT', repeat('b', 250), repeat('s', 250), 'u1', 'u2', 10, 1, repeat('x', 8190))
SQL
	wait_for(sub { injected() >= 3 || !kill 0, $pid }, 'it to be refused memory, again and again');
	cmp_ok(injected(), '>=', 3, 'there is none for its texts');
	wish();
	$s->status_is('remarked', 'SETTLED', 'it settles when there is');
	unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile, $log), qr/PANIC|terminated by signal/, 'nothing crashed');
	$s->at_rest;
	$s->ledgers_are_equal;
	$s->reset('workers');
};

done_testing();
