#!/usr/bin/perl
# A paused symbol with many trades, and the others beside it: on the way out of
# the queue, while they lie there, and on the way back.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

my $n = 20_000;
my $s = Settlement->start(conf => "settlement.poll_interval = '1min'");

# What was still in the way when a trade of another symbol was claimed.
$s->sql(<<'SQL');
CREATE TABLE public.claimed (trade_id text, queued bigint, aside bigint);
CREATE FUNCTION public.log_claim() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.claimed
    SELECT q.trade_id, (SELECT count(*) FROM settlement.queue WHERE symbol = 'ETH/USDT'),
           (SELECT count(*) FROM settlement.deferred WHERE symbol = 'ETH/USDT')
    FROM settlement.queue q WHERE q.id = ANY (new.ids) AND q.symbol = 'BTC/USDT';
    RETURN NULL;
END $$;
CREATE TRIGGER log_claim AFTER INSERT ON settlement.claims FOR EACH ROW EXECUTE FUNCTION public.log_claim();
SQL

sub index_reads { $s->sql("SELECT idx_tup_read FROM pg_stat_all_indexes WHERE indexrelid = 'settlement.queue_pkey'::regclass") }

sub pause_eth
{
	my ($until) = @_;
	$s->sql("SELECT settlement.pause('many', 'ETH/USDT'" . ($until ? ", clock_timestamp() + interval '$until'" : '') . ')');
	is($s->sql('SELECT acknowledged FROM settlement.wait_paused()'), 't', 'every worker acknowledges');
}

sub are_aside
{
	my ($count) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$s->becomes("SELECT count(*) FROM settlement.deferred WHERE reason = 'paused'", $count, "$count are put aside");
	is($s->sql("SELECT count(*) FROM settlement.queue"), 0, 'and out of the queue');
}

scenario others_overtake => sub {
	# VACUUM finds an empty queue with many pages: it counts as one row.
	$s->trades('before', 2000, symbol => 'BTC/USDT');
	$s->settled_is('before', 2000);
	$s->becomes('SELECT count(*) FROM settlement.queue', 0, 'the queue is empty');
	$s->sql('VACUUM ANALYZE settlement.queue');
	pause_eth();
	my $reads = index_reads();
	$s->sql('TRUNCATE public.claimed');
	$s->engine("SELECT put('eth', $n, symbol => 'ETH/USDT'); SELECT put('behind', 20, symbol => 'BTC/USDT')");
	$s->settled_is('behind', 20, 'trades behind them settle');
	cmp_ok($s->sql("SELECT min(queued) FROM public.claimed WHERE trade_id LIKE 'behind%'"), '>', $n / 2, 'while most of them are in the queue');
	are_aside($n);
	is($s->sql("SELECT count(*) FROM public.trades WHERE trade_id LIKE 'eth%' AND settlement_status <> 'PENDING'"), 0, 'none of them is sent');
	$s->sql('SELECT pg_sleep(1.1)');	# statistics are sent once a second
	$s->trade('flush', symbol => 'BTC/USDT');
	$s->settled_is('flush', 1);
	cmp_ok(index_reads() - $reads, '<', 20 * $n, 'putting them aside reads each of them a few times');
};

# Somebody holds some of them, and the others are not waited for.
scenario they_go_back_between_the_others => sub {
	$s->faults({ match => { trade_id => 'retried', times => 1 }, action => 'status', status => 503 });
	my $operator = $s->session;
	$operator->query_safe("BEGIN; SELECT count(*) FROM (SELECT FROM settlement.deferred WHERE symbol = 'ETH/USDT' ORDER BY id LIMIT 100 FOR UPDATE) d");
	$s->sql('TRUNCATE public.claimed');
	like($s->sql("SELECT settlement.resume('ETH/USDT')"), qr/$n trades put aside go back/, 'resumed');
	$s->trades('between', 20, symbol => 'BTC/USDT');
	$s->trade('retried', symbol => 'BTC/USDT');
	$s->settled_is('between', 20, 'new trades settle');
	$s->settled_is('retried', 1, 'and one that is tried again');
	cmp_ok($s->sql("SELECT min(aside) FROM public.claimed WHERE trade_id LIKE 'between%'"), '>', 100, 'while many wait');
	$s->settled_is('eth', $n - 100, 'all but the held ones settle');
	$operator->query_safe('COMMIT');
	$operator->quit;
	$s->settled_is('eth', $n, 'then these, too');
	is($s->sql("SELECT string_agg(DISTINCT settlement_attempts::text, ' ') FROM public.trades WHERE trade_id LIKE 'eth%'"), '1', 'by one attempt each');
	$s->faults;
};

# The end that counts is that of the pause as it is now.
scenario another_end => sub {
	pause_eth('1 hour');
	$s->trades('sooner', 300, symbol => 'ETH/USDT');
	are_aside(300);
	pause_eth('1 second');
	$s->settled_is('sooner', 300, 'they go on by themselves');
	pause_eth('1 hour');
	$s->trades('later', 300, symbol => 'ETH/USDT');
	are_aside(300);
	pause_eth();
	$s->sql("UPDATE settlement.deferred SET retry_at = clock_timestamp() - interval '1 second'");
	$s->sql('SELECT settlement.rescan()');
	$s->trade('meanwhile', symbol => 'BTC/USDT');
	$s->settled_is('meanwhile', 1);
	are_aside(300);
	$s->sql("SELECT settlement.resume('ETH/USDT')");
	$s->settled_is('later', 300);
};

scenario crash_while_they_are_put_aside => sub {
	pause_eth();
	$s->trades('crash', 5000, symbol => 'ETH/USDT');
	$s->node->stop('immediate');
	$s->node->start;
	$s->trades('after', 20, symbol => 'BTC/USDT');
	$s->settled_is('after', 20);
	are_aside(5000);
	$s->sql("SELECT settlement.resume('ETH/USDT')");
	$s->settled_is('crash', 5000);
};

# They are resumed while most are passed, not put aside.
scenario resumed_while_they_are_put_aside => sub {
	pause_eth();
	$s->trades('early', 5000, symbol => 'ETH/USDT');
	$s->sql("SELECT settlement.resume('ETH/USDT')");
	$s->settled_is('early', 5000);
};

$s->at_rest;
$s->ledgers_are_equal;

done_testing();
