#!/usr/bin/perl
# Setting the wallet up, and looking into it: accounts, reservations, ledger pages.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Time::HiRes qw(time);
use Walletd qw(new_key);

my $wallet = Walletd->start(db => 'file', args => [ '--sync', 'off', '--fee-account', 'house' ]);

my @many = map { { account => "u$_", currency => 'USDT', amount => '1.5' } } 1 .. 20000;
my $start = time;
is($wallet->ok_json(POST => '/admin/accounts', \@many)->{entries}, 20000, 'many_accounts_in_one_request');
cmp_ok(time - $start, '<', $ENV{WALLETD_WRAPPER} ? 120 : 10, 'are_made_fast');
is($wallet->balances('?account=external')->{'external USDT'}, '-30000', 'deposits_come_from_the_source_account');
is($wallet->ok_json(POST => '/admin/deposit', { account => 'u1', currency => 'USDT', amount => '0.5' })->{entries}, 1, 'one_deposit');
is($wallet->balances('?account=u1')->{'u1 USDT'}, '2', 'adds_to_the_balance');
$wallet->fund(qw(empty USDT 0));
is_deeply($wallet->balances('?account=empty'), {}, 'a_deposit_of_zero_only_makes_the_account');
$wallet->fund(qw(bob BTC 1));
is($wallet->settle($wallet->trade(trade_id => 'e', buyer_id => 'empty'), new_key())->{json}{code}, 'INSUFFICIENT_BALANCE', 'which_is_then_known');

my $before = $wallet->balances;
for ([ { currency => 'USDT', amount => '1' }, 'without_account' ], [ { account => 'a', amount => '1' }, 'without_currency' ],
	[ { account => 'a', currency => 'USDT' }, 'without_amount' ], [ { account => 'a', currency => 'USDT', amount => '-1' }, 'with_a_negative_amount' ],
	[ { account => 'external', currency => 'USDT', amount => '1' }, 'into_the_source_account' ], [ 'x', 'that_is_no_object' ])
{
	my $reply = $wallet->post('/admin/accounts', [ { account => 'fresh', currency => 'USDT', amount => '1' }, $_->[0] ]);
	ok($reply->{status} == 400 && $reply->{json}{message} =~ /^entry 2:/, "refuses_an_entry_$_->[1]") or diag $reply->{content};
}
is($wallet->post('/admin/accounts', 'x')->{status}, 400, 'refuses_what_is_no_json');
is($wallet->post('/admin/accounts', '"x"')->{status}, 400, 'refuses_what_is_no_list');
is_deeply($wallet->balances, $before, 'a_refused_list_changes_nothing');

# the ledger in pages
$wallet->fund(qw(alice USDT 1000000));
$wallet->settle($wallet->trade(trade_id => "p$_", base_amount => '0.01'), new_key()) for 1 .. 10;
my @all = $wallet->ledger;
my @paged;
while (my @page = $wallet->ledger('?limit=7000&after=' . (@paged ? $paged[-1]{seq} : 0)))
{
	cmp_ok(scalar @page, '<=', 7000, 'a_page_has_its_size');
	push @paged, @page;
}
is_deeply(\@paged, \@all, 'the_pages_are_the_whole');
is(scalar @all, 2 * 20003 + 50, 'each_posting_is_in_it');
is(scalar(grep { $all[$_]{seq} <= $all[ $_ - 1 ]{seq} } 1 .. $#all), 0, 'in_ascending_order');
is_deeply([ sort keys %{ $all[-1] } ], [ qw(account amount at currency key kind leg seq settlement_id trade_id) ], 'with_all_its_members');
like($all[-1]{at}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/, 'at_is_a_time');
is(scalar $wallet->ledger('?account=house'), 10, 'by_account');
is(scalar(my @p3 = $wallet->ledger('?trade_id=p3')), 5, 'by_trade');
is($wallet->get('/ledger?limit=x')->{status}, 400, 'a_limit_that_is_no_number_is_refused');
is($wallet->balances('?account=house')->{'house USDT'}, '375', 'fees_go_to_the_fee_account');

is($wallet->stats->{settle}{effects}, 10, 'effects_are_counted');
$wallet->ok_json(POST => '/admin/reset-stats');
is($wallet->stats->{settle}{effects}, 0, 'until_reset');
is($wallet->stop, 0, 'ends_cleanly');

# reservations
my $strict = Walletd->start(args => ['--reservations']);
$strict->fund_alice_and_bob;
my $reserve = sub { my ($order, $account, $currency, $amount) = @_;
	return $strict->post('/admin/reservations', [ { order_id => $order, account => $account, currency => $currency, amount => $amount } ]) };
my $try = sub { my ($id, %fields) = @_;
	my $reply = $strict->settle($strict->trade(trade_id => $id, %fields), new_key());
	return $reply->{json}{code} // $reply->{status} };
is($try->('r1'), 'RESERVATION_NOT_FOUND', 'without_a_reservation_nothing_settles');
is($reserve->('bo-1', 'alice', 'USDT', '50050')->{status}, 200, 'the_buyer_reserves');
is($try->('r2'), 'RESERVATION_NOT_FOUND', 'both_parties_need_one');
is($reserve->('so-1', 'bob', 'BTC', '1')->{status}, 200, 'the_seller_reserves');
is($try->('r3', buyer_id => 'bob', seller_id => 'alice'), 'INSUFFICIENT_BALANCE', 'balances_come_first');
is($try->('r4'), 200, 'then_it_settles');
is($try->('r5', base_amount => '0.6', quote_amount => '1000'), 'INSUFFICIENT_BALANCE', 'not_more_than_was_reserved');
is($try->('r6'), 200, 'the_rest_settles');
is($try->('r7'), 'RESERVATION_NOT_FOUND', 'a_reservation_used_up_is_gone');
is($reserve->('bo-2', 'alice', 'USDT', '949951')->{status}, 422, 'no_more_can_be_reserved_than_there_is');
is($reserve->('bo-2', 'alice', 'USDT', '940000')->{status}, 200, 'all_that_is_free_can');
is($reserve->('bo-3', 'alice', 'USDT', '949950')->{status}, 422, 'but_only_once');
ok($strict->audit->{ok}, 'the_ledger_is_sound');
is($strict->stop, 0, 'ends_cleanly');
done_testing;
