#!/usr/bin/perl
# Operators and settings at work while trades stream in.  Nothing of it is a
# failure: so no trade may be sent twice, and none left behind.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use IPC::Run;
use Test::More;

my $s = Settlement->start(conf => "settlement.poll_interval = '10min'");

my $dir = $s->node->basedir;
PostgreSQL::Test::Utils::append_to_file("$dir/engine", "SELECT public.put('load-' || :client_id || '-' || nextval('seq'), 3);\n");
$s->sql('CREATE SEQUENCE seq; GRANT USAGE ON SEQUENCE seq TO engine');

# Inserts at a rate until the code has run; returns how many trades there are.
sub while_inserting
{
	my ($code) = @_;
	my ($out, $err) = ('', '');
	my $load = IPC::Run::start([ 'pgbench', '-n', '-h', $s->node->host, '-p', $s->node->port, '-U', 'engine', '-c', 4, '-j', 1,
		'--rate', 150, '-T', 600, '-f', "$dir/engine", 'postgres' ], '>', \$out, '2>', \$err);
	my $more = sub {
		my $n = $s->sql('SELECT count(*) FROM trades');
		$s->becomes("SELECT count(*) > $n + 40 FROM trades", 't', 'the load goes on');
	};
	my $ok = eval { $code->($more); 1 };
	my $error = $@;
	$load->signal('INT');
	eval { $load->finish };
	die $error unless $ok;
	unlike($err, qr/error|aborted/i, 'no INSERT failed');
	return $s->sql('SELECT count(*) FROM trades');
}

sub each_once
{
	$s->becomes("SELECT count(*) FROM trades WHERE settlement_status IS DISTINCT FROM 'SETTLED'", 0, 'all have settled');
	is($s->requests, $s->sql('SELECT count(*) FROM trades'), 'one request for each trade')
		or diag($s->sql(<<'SQL'));
SELECT 'attempt', a::text FROM settlement.attempts a
UNION ALL SELECT 'trade', concat_ws(' ', trade_id, settlement_attempts) FROM trades WHERE settlement_attempts <> 1
UNION ALL SELECT 'counter', name || ' ' || value FROM settlement.metrics WHERE kind = 'counter'
SQL
	$s->at_rest;
	$s->ledgers_are_equal;
}

scenario worker_count => sub {
	while_inserting(sub {
		my ($more) = @_;
		for my $n (4, 1, 3, 0, 2)
		{
			$s->set(workers => $n);
			$more->();
		}
	});
	each_once();
};

scenario reloads => sub {
	while_inserting(sub {
		my ($more) = @_;
		for my $i (1 .. 6)
		{
			$s->set(concurrency => $i % 2 ? 4 : 64, request_timeout => (4 + $i) . 's');
			$more->();
		}
	});
	$s->reset('concurrency', 'request_timeout');
	each_once();
};

scenario switching_off_and_on => sub {
	while_inserting(sub {
		my ($more) = @_;
		for my $i (1 .. 4)
		{
			$s->set(enabled => 'off');
			$more->();
			$s->set(enabled => 'on');
			$more->();
		}
	});
	each_once();
};

scenario pausing => sub {
	while_inserting(sub {
		my ($more) = @_;
		for my $symbol ('NULL', "'BTC/USDT'", "'SOL-USDT'", 'NULL', "'BTC/USDT'")
		{
			$s->sql("SELECT settlement.pause('test', $symbol)");
			is($s->sql('SELECT acknowledged FROM settlement.wait_paused()'), 't', 'acknowledged');
			$more->();
			$s->sql("SELECT settlement.resume($symbol)");
			$more->();
		}
	});
	each_once();
};

scenario restarting_workers => sub {
	while_inserting(sub {
		my ($more) = @_;
		for my $i (1 .. 4)
		{
			$s->sql('SELECT settlement.restart_worker(slot) FROM settlement.workers WHERE state = \'running\' LIMIT 1');
			$more->();
			$s->sql('SELECT pg_terminate_backend(pid) FROM settlement.workers LIMIT 1');
			$more->();
		}
	});
	each_once();
};

scenario rescans_and_old_transactions => sub {
	my $old = $s->session;
	$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT put(\'oldest\')');
	while_inserting(sub {
		my ($more) = @_;
		for my $i (1 .. 6)
		{
			$s->sql('SELECT settlement.rescan()');
			$more->();
		}
	});
	$old->query_safe('COMMIT');
	$old->quit;
	each_once();
};

scenario drain => sub {
	while_inserting(sub { $_[0]->() for 1 .. 3 });
	$s->sql('CALL settlement.drain()');
	is($s->sql("SELECT count(*) FROM trades WHERE settlement_status <> 'SETTLED'"), 0, 'all have settled when it returns');
	each_once();
};

done_testing();
