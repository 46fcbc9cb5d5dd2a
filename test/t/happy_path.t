#!/usr/bin/perl
# Inserted trades settle, as the Go service's tests had it, and more of them.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;
use Time::HiRes qw(usleep);

# Polling is off, as it were: only being woken is fast enough.
my $s = Settlement->start(conf => "settlement.poll_interval = '10min'");

scenario happy_path => sub {
	$s->trade('happy', symbol => 'BTC/USDT', buyer => 'u1', seller => 'u2', price => '50000',
		quantity => '0.5', buyer_fee => '25', seller_fee => '12.5');
	$s->status_is('happy', 'SETTLED');
	my ($posting) = $s->wallet->ledger('?trade_id=happy');
	is($s->sql(<<'SQL'), "$posting->{settlement_id}|1|t|t", 'its row says which settlement, when, and after how many attempts');
SELECT settlement_id, settlement_attempts, settlement_error IS NULL, settled_at BETWEEN executed_at AND now()
FROM trades WHERE trade_id = 'happy'
SQL
	is($s->requests, 1, 'by one request');
	$s->at_rest;
	$s->ledgers_are_equal;
};

scenario one_after_the_other => sub {
	for my $i (1 .. 10)
	{
		$s->trade("serial-$i");
		$s->status_is("serial-$i", 'SETTLED', "serial-$i settles without polling", 20);
	}
};

# The descriptors of a process, by what they are: [eventpoll], [signalfd], ...
sub descriptors
{
	my ($pid) = @_;
	my %is;
	for my $path (glob "/proc/$pid/fd/*")
	{
		my ($fd) = $path =~ /(\d+)$/;
		$is{$fd} = $1 if (readlink($path) // '') =~ /^anon_inode:(\S+)/;
	}
	return %is;
}

# An epoll set without the latch is the wallet client's: does the set with the
# latch, in which the worker waits, have it?
sub hears_its_client
{
	my ($pid) = @_;
	my %is = descriptors($pid);
	my %watches;
	for my $set (grep { $is{$_} eq '[eventpoll]' } keys %is)
	{
		my $info = PostgreSQL::Test::Utils::slurp_file("/proc/$pid/fdinfo/$set");
		$watches{$set} = { map { $_ => 1 } $info =~ /^tfd:\s*(\d+)/mg };
	}
	my @waits = grep { my $w = $watches{$_}; grep { ($is{$_} // '') eq '[signalfd]' } keys %$w } keys %watches;
	my @clients = grep { my $set = $_; !grep { $_ == $set } @waits } keys %watches;
	return @clients == 1 && scalar grep { $watches{$_}{$clients[0]} } @waits;
}

scenario answers_are_heard_after_a_reload => sub {
	plan skip_all => 'reads what Linux says of epoll sets' unless -e '/proc/self/fdinfo';
	plan skip_all => 'the latch is a signalfd since PostgreSQL 14' if $s->sql('SHOW server_version_num') < 140000;
	for my $i (1 .. 12)
	{
		$s->node->reload;
		$s->trades("reload-$i-", 4);
		$s->settled_is("reload-$i-", 4);
		my @deaf = split /\n/, $s->sql('SELECT pid FROM settlement.workers');
		for (my $try = 0; @deaf && $try < 10 * $PostgreSQL::Test::Utils::timeout_default; $try++)
		{
			@deaf = grep { !hears_its_client($_) } @deaf;
			usleep(100_000) if @deaf;
		}
		is("@deaf", '', "workers wait for answers after reload $i");
	}
};

scenario twenty_jobs => sub {
	$s->trades('job', 20);
	$s->settled_is('job', 20);
	$s->ledgers_are_equal;
};

for my $n (10, 100)
{
	scenario "concurrent_$n" => sub {
		my $script = $s->node->basedir . "/engine-$n";
		PostgreSQL::Test::Utils::append_to_file($script,
			"SELECT public.put('c$n-' || :client_id || '-' || (random() * 1e12)::bigint);\n");
		my $clients = $n < 20 ? $n : 20;
		$s->node->command_ok([ 'pgbench', '-n', '-U', 'engine', '-c', $clients, '-j', 2, '-t', $n / $clients,
			'-f', $script, 'postgres' ], "$clients sessions insert");
		$s->settled_is("c$n-", $n);
		$s->at_rest;
		$s->ledgers_are_equal;
	};
}

scenario rolled_back_trades_are_never_sent => sub {
	my $before = $s->requests;
	$s->engine(<<'SQL');
BEGIN; SELECT put('rolled-back', 5); ROLLBACK;
BEGIN; SELECT put('before'); SAVEPOINT a; SELECT put('inside', 3); ROLLBACK TO a; SELECT put('after'); COMMIT;
SQL
	$s->status_is('before', 'SETTLED');
	$s->status_is('after', 'SETTLED');
	$s->at_rest;
	is($s->requests - $before, 2, 'requests for what was committed only');
	$s->ledgers_are_equal;
};

scenario symbol_formats => sub {
	my %symbols = (slash => 'BTC/USDT', dash => 'ETH-USDT', underscore => 'SOL_USDT');
	$s->trade("symbol-$_", symbol => $symbols{$_}) for sort keys %symbols;
	$s->settled_is('symbol-', 3);
	for my $name (sort keys %symbols)
	{
		my %seen = map { ($_->{currency} => 1) } $s->wallet->ledger("?trade_id=symbol-$name");
		is(join(' ', sort keys %seen), join(' ', sort split /\W|_/, $symbols{$name}),
			"$symbols{$name} moves both of its currencies");
	}
};

scenario buyer_is_seller => sub {
	$s->trade('self', buyer => 'u5', seller => 'u5');
	$s->status_is('self', 'SETTLED');
	$s->ledgers_are_equal;
};

scenario the_idle_do_nothing => sub {
	$s->at_rest;
	my $turns = $s->metric('turns');
	$s->trade('last');
	$s->status_is('last', 'SETTLED');
	cmp_ok($s->metric('turns') - $turns, '<', 20, 'one trade takes a few turns');
};

scenario metrics => sub {
	$s->trade('metric-poor', buyer => 'poor');
	$s->status_is('metric-poor', 'FAILED');
	my %value = map { split /\|/ } split /\n/, $s->sql('SELECT name, value FROM settlement.metrics');
	my $trades = $s->sql('SELECT count(*) FROM trades');
	is($value{submitted}, $trades, 'submitted counts the trades');
	is($value{processed}, $trades, 'so does processed');
	is($value{settled}, $trades - 1, 'settled counts those settled');
	is($value{failed}, 1, 'failed counts the other');
	is($value{total_settlements}, $value{processed}, 'total_settlements is processed');
	is($value{failed_settlements}, $value{failed}, 'failed_settlements is failed');
	is($value{dlq_size}, 1, 'dlq_size');
	is($value{queue_depth}, 0, 'queue_depth');
	is($value{requests}, $s->requests, 'requests are those that the wallet has seen');
	is($value{workers}, 2, 'workers');
	is($value{sending}, 1, 'sending');
	cmp_ok($value{settle_p50_seconds}, '>', 0, 'durations are measured');
	my $text = $s->sql('SELECT settlement.prometheus()');
	like($text, qr/^settlement_settled_total\{database="postgres"\} @{[ $trades - 1 ]}$/m, 'Prometheus sees the same');
	like($s->sql('SELECT rate_1m FROM settlement.status'), qr{^[\d.]*[1-9][\d.]*/[\d.]*[1-9]}, 'and so does the status');
};

done_testing();
