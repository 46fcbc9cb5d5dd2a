#!/usr/bin/perl
# An old primary is fenced by its epoch; a stranger by the Authorization header.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use File::Temp;
use Walletd qw(new_key);

my $wallet = Walletd->start(db => 'file', args => [ '--sync', 'off' ]);
$wallet->fund_alice_and_bob;
my $n = 0;

sub settle_at
{
	my ($epoch, $key) = @_;
	$n++;
	my $reply = $wallet->settle($wallet->trade(trade_id => "e$n", base_amount => '0.01'), $key // new_key(),
		defined $epoch ? ('Settlement-Epoch' => $epoch) : ());
	return $reply->{json}{code} // $reply->{status};
}

is(settle_at(undef), 200, 'without_an_epoch_it_settles');
is(settle_at(5), 200, 'an_epoch_settles');
is(settle_at(5), 200, 'the_same_epoch_settles');
my $key = new_key();
my $stale = $wallet->settle($wallet->trade, $key, 'Settlement-Epoch' => 4);
is_deeply([ $stale->{status}, $stale->{json}{code} ], [ 412, 'STALE_EPOCH' ], 'a_lower_epoch_is_refused');
is($stale->{json}{epoch}, 5, 'the_refusal_says_what_was_seen');
is($wallet->look_up($key)->{json}{code}, 'UNKNOWN_KEY', 'and_nothing_is_remembered_of_it');
is($wallet->audit->{settlements}, 3, 'nor_has_it_an_effect');
is($wallet->settle($wallet->trade, $key, 'Settlement-Epoch' => 6)->{status}, 200, 'the_key_settles_for_a_higher_epoch');
is($wallet->settle($wallet->trade, $key, 'Settlement-Epoch' => 5)->{json}{code}, 'STALE_EPOCH', 'a_stored_answer_is_not_given_to_a_lower_epoch');
is(settle_at($_), 'INVALID_REQUEST', "an_epoch_of_${_}_is_refused") for 'x', '-1', '1.5', '99999999999999999999';
$wallet->crash;
$wallet->launch;
is(settle_at(5), 'STALE_EPOCH', 'the_highest_epoch_survives_a_restart');
is($wallet->ok_json(POST => '/admin/epoch', { epoch => 2 })->{epoch}, 2, 'an_administrator_may_set_it');
is(settle_at(2), 200, 'to_a_lower_one_too');
is($wallet->stats->{epoch}, 2, 'and_it_is_shown');
is($wallet->post('/admin/epoch', { epoch => 'x' })->{status}, 400, 'an_epoch_that_is_no_number_is_refused');

sub settle_of
{
	my ($lineage, $epoch) = @_;
	$n++;
	my $reply = $wallet->settle($wallet->trade(trade_id => "l$n", base_amount => '0.01'), new_key(), 'Settlement-Epoch' => $epoch, 'Settlement-Lineage' => $lineage);
	return $reply->{json}{code} // $reply->{status};
}

is(settle_of(@$_), 200, "an_epoch_of_$$_[1]_settles_of_lineage_$$_[0]") for [ 'a', 7 ], [ 'b', 1 ], [ 'b', 3 ];
$wallet->crash;
$wallet->launch;
is(settle_of('a', 6), 'STALE_EPOCH', 'a_lower_one_of_the_same_lineage_is_refused');
is(settle_of('b', 3), 200, 'that_of_another_lineage_is_not');
is($wallet->stats->{epoch}, 7, 'the_highest_of_all_is_shown');
$wallet->ok_json(POST => '/admin/epoch', { epoch => 2 });
is(settle_of('a', 2), 200, 'all_are_set');

my $token = File::Temp->new;
print $token "Bearer top-secret\n";
$token->flush;
my $closed = Walletd->start(args => [ '--auth', "$token" ], headers => { Authorization => 'Bearer top-secret' });
$closed->fund_alice_and_bob;
is($closed->settle($closed->trade, new_key())->{status}, 200, 'the_right_header_is_let_in');
is($closed->settle($closed->trade, new_key(), Authorization => $_)->{status}, 401, "the_header_<$_>_is_kept_out")
	for 'Bearer top-secre', 'Bearer top-secrets', 'bearer top-secret', 'top-secret', 'x', '';
delete $closed->{headers}{Authorization};
is($closed->settle($closed->trade, new_key())->{status}, 401, 'no_header_is_kept_out');
ok(!exists $closed->settle($closed->trade, new_key())->{json}{code}, 'a_401_has_no_code_of_the_contract');
is($closed->get($_)->{status}, 401, "$_ is closed too") for '/ledger', '/admin/faults', '/nope';
is($closed->get('/healthz')->{status}, 200, 'but_health_is_open');
$closed->{headers}{Authorization} = 'Bearer top-secret';
is($closed->audit->{settlements}, 1, 'only_the_right_one_had_an_effect');
unlike($closed->output, qr/top-secret/, 'the_token_is_not_in_the_output');
is($_->stop, 0, 'ends_cleanly') for $wallet, $closed;
done_testing;
