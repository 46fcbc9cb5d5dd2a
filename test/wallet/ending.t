#!/usr/bin/perl
# The end in the middle of work, and a ledger that cannot be written.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Walletd qw(new_key wait_for read_all read_reply);

# requests of every kind are open when the signal comes
my $wallet = Walletd->start(db => 'file');
$wallet->fund(qw(alice USDT 100000000 bob BTC 10000));
$wallet->faults({ match => { trade_id => 'hang' }, action => 'hang' }, { match => { trade_id => 'delay' }, action => 'pass', delay_ms => 60000 },
	{ match => { trade_id => 'drip' }, action => 'drip', interval_ms => 60000 });
my %open = map { ($_ => $wallet->connect) } qw(hang delay drip idle);
$open{$_}->syswrite($wallet->settle_bytes($wallet->trade(trade_id => $_), new_key())) for qw(hang delay drip);
wait_for(sub { my $faults = $wallet->stats->{faults}; $faults->{hang} && $faults->{pass} && $faults->{drip} }, 'the requests to be read');
my $half = $wallet->connect;
$half->syswrite("POST /api/wallets/settle HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
my $child = fork // die;
if ($child == 0)
{
	my @sockets = map { $wallet->connect } 1 .. 16;
	for my $i (1 .. 100000)
	{
		local $SIG{PIPE} = 'IGNORE';
		$_->syswrite($wallet->settle_bytes($wallet->trade(trade_id => "l$i-" . fileno $_, base_amount => '0.001', quote_amount => '20'), new_key())) for @sockets;
		for (@sockets) { read_reply($_, \my $buffer) or POSIX::_exit(0) }
	}
	POSIX::_exit(1);
}
wait_for(sub { $wallet->stats->{settle}{effects} > 50 }, 'load');
is($wallet->stop, 0, 'a_signal_ends_it_whatever_is_open');
waitpid $child, 0;
is($?, 0, 'and_its_clients_see_that');
is((read_all($open{$_}, 2))[1], 'eof', "the $_ connection is closed") for qw(hang delay idle);
$wallet->launch;
ok($wallet->audit->{ok}, 'the_ledger_is_sound');

# a trigger makes one trade impossible to write
if (`sqlite3 --version 2>&1` !~ /^3/)
{
	note 'no sqlite3 program: the failing ledger is not tested';
	done_testing;
	exit;
}
my $sql = sub { is(system('sqlite3', '-cmd', '.timeout 5000', $wallet->{db}, @_), 0, 'doctored') };
$sql->("CREATE TRIGGER boom BEFORE INSERT ON postings WHEN NEW.leg = 4 AND NEW.account = 'mallory' BEGIN SELECT RAISE(ABORT, 'boom'); END");
$wallet->fund(qw(mallory BTC 10));
my $before = $wallet->balances;
my ($body, $key) = ($wallet->trade(trade_id => 'boom', seller_id => 'mallory'), new_key());
my $reply = $wallet->settle($body, $key, 'Settlement-Epoch' => 9);
is($reply->{status}, 500, 'a_ledger_that_cannot_be_written_is_a_500');
ok(!exists $reply->{json}{code}, 'without_a_code');
is_deeply($wallet->balances, $before, 'and_without_effect');
is($wallet->look_up($key)->{json}{code}, 'UNKNOWN_KEY', 'nothing_is_remembered');
is($wallet->stats->{epoch}, 0, 'the_epoch_neither');
like($wallet->output, qr/could not commit a batch of 1: boom/, 'it_is_logged');
is($wallet->settle($wallet->trade(trade_id => 'fine'), new_key())->{status}, 200, 'the_next_trade_settles');
$sql->('DROP TRIGGER boom');
is($wallet->settle($body, $key)->{status}, 200, 'and_the_same_request_does_when_it_can');
ok($wallet->audit->{ok}, 'the_ledger_is_sound');
is($wallet->stop, 0, 'ends_cleanly');
done_testing;
