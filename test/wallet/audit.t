#!/usr/bin/perl
# The audit trusts nothing but the tables: each way of doctoring them is seen.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Walletd qw(new_key);

# the sqlite3 program, or Python's module
my $python = 'import sqlite3,sys; d=sqlite3.connect(sys.argv[1],timeout=5); d.executescript(sys.argv[2]); d.commit()';
my $doctor = `sqlite3 --version 2>&1` =~ /^3/ ? sub { system('sqlite3', '-cmd', '.timeout 5000', @_) }
	: `python3 -c 'import sqlite3' 2>&1` eq '' ? sub { system('python3', '-c', $python, @_) }
	: undef;
plan skip_all => 'needs sqlite3 or python3 to doctor a ledger' unless $doctor;

sub doctored
{
	my ($sql, $problem, $name) = @_;
	my $wallet = Walletd->start(db => 'file', args => [ '--sync', 'off' ]);
	$wallet->fund_alice_and_bob;
	$wallet->settle($wallet->trade(trade_id => "t$_"), new_key()) for 1 .. 3;
	is($wallet->audit->{ok}, JSON::PP::true, 'sound_at_first');
	is($doctor->($wallet->{db}, $sql), 0, 'doctored');
	my $audit = $wallet->audit;
	ok(!$audit->{ok} && $audit->{problems}{$problem}, $name) or diag explain $audit;
	is($audit->{$problem}, scalar @{ $audit->{problems}{$problem} // [] }, 'with_the_number_of_them');
	$wallet->stop;
}

my $posting = "(SELECT max(transfer) FROM postings)";
doctored("UPDATE postings SET amount = '38' WHERE account = 'exchange' AND transfer = $posting",
	'currencies_not_zero', 'a_changed_amount_unbalances_the_currency');
doctored("UPDATE postings SET amount = '38' WHERE account = 'exchange' AND transfer = $posting",
	'transfers_not_zero', 'and_the_transfer');
doctored("UPDATE postings SET amount = '37.500000000000000000000000000000000001' WHERE account = 'exchange' AND transfer = $posting",
	'currencies_not_zero', 'the_smallest_unit_is_enough');
doctored("UPDATE postings SET amount = 'x' WHERE account = 'exchange' AND transfer = $posting",
	'currencies_not_zero', 'an_unreadable_amount_is_no_zero');
doctored("DELETE FROM postings WHERE transfer = $posting AND leg = 5", 'settlements_without_five_postings', 'a_missing_posting');
doctored("DELETE FROM postings WHERE transfer = $posting", 'settlements_without_five_postings', 'five_missing_postings');
doctored("DELETE FROM transfers WHERE id = $posting", 'postings_without_transfer', 'postings_of_no_transfer');
doctored("DELETE FROM transfers WHERE id = $posting", 'answers_without_settlement', 'an_answer_without_its_settlement');
doctored("UPDATE transfers SET trade_id = 't1' WHERE trade_id = 't2'", 'duplicate_trades', 'a_trade_settled_twice');
doctored("UPDATE balances SET amount = '1' WHERE account = 'alice' AND currency = 'BTC'",
	'balances_not_sum_of_postings', 'a_balance_that_its_postings_do_not_explain');
doctored("INSERT INTO balances VALUES ('thief', 'USDT', '5')", 'balances_not_sum_of_postings', 'a_balance_without_postings');
doctored("DELETE FROM balances WHERE account = 'bob'", 'balances_not_sum_of_postings', 'postings_without_a_balance');
doctored("UPDATE balances SET amount = '-1' WHERE account = 'alice'", 'overdrawn_balances', 'a_balance_below_zero');
doctored("UPDATE postings SET currency = 'ETH' WHERE transfer = $posting AND leg IN (2, 3)",
	'balances_not_sum_of_postings', 'another_currency_even_if_it_balances');

# beside the settlements, and on a ledger that grows
my $wallet = Walletd->start(db => 'file', args => [ '--sync', 'off' ]);
$wallet->fund(qw(alice USDT 100000000 bob BTC 10000));
my $child = fork // die;
if ($child == 0)
{
	$wallet->settle($wallet->trade(trade_id => "g$_", base_amount => '0.001'), new_key()) for 1 .. 400;
	POSIX::_exit(0);
}
my @audits;
push @audits, $wallet->audit until waitpid $child, POSIX::WNOHANG();
is(scalar(grep { !$_->{ok} } @audits), 0, 'an_audit_beside_settlements_sees_a_consistent_ledger');
is($wallet->audit->{settlements}, 400, 'and_in_the_end_all_of_it');
is($wallet->stop, 0, 'ends_cleanly');
done_testing;
