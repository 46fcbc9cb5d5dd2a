#!/usr/bin/perl
# Which requests a rule of misbehaviour takes, and which rules are refused.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use File::Temp;
use Walletd qw(new_key wait_for);

my $wallet = Walletd->start(args => [ '--seed', '7' ]);
$wallet->fund_alice_and_bob;

# Which of these trades are struck, each sent as often as it is listed.
sub struck
{
	my ($from, @trades) = @_;
	my @struck;
	for my $fields (@trades)
	{
		my %fields = ref $fields ? %$fields : (trade_id => $fields);
		my $reply = $from->settle($from->trade(base_amount => '0.0001', quote_amount => '13', %fields), new_key());
		push @struck, $fields{trade_id} if $reply->{status} == 503;
	}
	return join ' ', @struck;
}

sub rule { my (%match) = @_; return { match => \%match, action => 'status', status => 503 } }

sub takes
{
	my ($match, $expected, $name, @trades) = @_;
	$wallet->faults(rule(%$match));
	is(struck($wallet, @trades), $expected, $name);
}

takes({}, 'a b', 'an_empty_match_takes_all', qw(a b));
takes({ trade_id => 'b' }, 'b', 'trade_id_is_exact', qw(a b bb));
takes({ trade_id_prefix => 'x-' }, 'x-1 x-2', 'a_prefix', qw(x-1 x x-2 ax-));
takes({ buyer_id => 'eve' }, 'e', 'a_buyer', 'a', { trade_id => 'e', buyer_id => 'eve' });
takes({ seller_id => 'eve' }, 'e', 'a_seller', 'a', { trade_id => 'e', seller_id => 'eve' });
takes({ symbol => 'ETH/USDT' }, 'e', 'a_symbol', 'a', { trade_id => 'e', base_currency => 'ETH' });
takes({ currency => 'ETH' }, 'e f', 'a_currency_on_either_side', 'a', { trade_id => 'e', base_currency => 'ETH' },
	{ trade_id => 'f', quote_currency => 'ETH' });
takes({ nth => 2 }, 'b', 'the_nth_request', qw(a b c d));
takes({ nth => 2, trade_id_prefix => 'x' }, 'x2', 'counted_among_those_that_match', qw(a x1 b x2 x3));
takes({ every => 3 }, 'c f', 'every_so_many', qw(a b c d e f g));
takes({ times => 2 }, 'a a b b', 'the_first_times_of_each_trade', qw(a a b a b b a));
takes({ count => 3 }, 'a b c', 'at_most_count_in_all', qw(a b c d e));
takes({ count => 2, every => 2 }, 'b d', 'count_counts_what_was_struck', qw(a b c d e f g));
takes({ p => 0 }, '', 'never', qw(a b c));
takes({ p => 1 }, 'a b c', 'always', qw(a b c));

$wallet->faults(rule(trade_id => 'a'), { match => {}, action => 'status', status => 500 });
is($wallet->settle($wallet->trade(trade_id => 'a'), new_key())->{status}, 503, 'the_first_rule_that_matches_wins');
is($wallet->settle($wallet->trade(trade_id => 'b'), new_key())->{status}, 500, 'the_next_takes_the_rest');

# the seed
my @many = map { "p$_" } 1 .. 200;
$wallet->faults(rule(p => 0.3));
my $drawn = struck($wallet, @many);
my $share = (split ' ', $drawn) / 200;
ok($share > 0.2 && $share < 0.4, "a_probability_is_kept: $share");
$wallet->faults(rule(p => 0.3));
is(join(' ', sort split ' ', struck($wallet, reverse @many)), join(' ', sort split ' ', $drawn),
	'the_same_seed_strikes_the_same_trades_in_any_order');
my $twin = Walletd->start(args => [ '--seed', '7' ]);
$twin->fund_alice_and_bob;
$twin->faults(rule(p => 0.3));
is(struck($twin, @many), $drawn, 'in_another_process_too');
my $other = Walletd->start(args => [ '--seed', '8' ]);
$other->fund_alice_and_bob;
$other->faults(rule(p => 0.3));
isnt(struck($other, @many), $drawn, 'another_seed_strikes_others');
$wallet->faults(rule(p => 0.5));
my @tries = split ' ', struck($wallet, ('same') x 40);
ok(@tries > 5 && @tries < 35, 'each_try_of_a_trade_is_drawn_anew');

# managing
my $listed = $wallet->faults({ name => 'mine', match => { count => 1 }, action => 'close' });
is_deeply([ map { $_->{name} } @{ $listed->{rules} } ], ['mine'], 'put_replaces_all');
is(scalar @{ $wallet->ok_json(POST => '/admin/faults', [ rule(), rule() ])->{rules} }, 3, 'post_adds');
$wallet->raw_settle($wallet->trade, new_key(), 2);
my $rules = $wallet->ok_json(GET => '/admin/faults')->{rules};
is_deeply([ @{ $rules->[0] }{qw(name seen played)} ], [ 'mine', 1, 1 ], 'counters_are_shown');
is($wallet->stats->{faults}{close}, 1, 'and_in_the_stats');
is_deeply($wallet->ok_json(DELETE => '/admin/faults')->{rules}, [], 'delete_removes_all');

# a capacity
takes({ above => 1 }, '', 'a_request_that_is_answered_leaves_its_place', qw(a b c));
$wallet->faults({ match => { above => 2 }, action => 'status', status => 503 }, { action => 'pass', delay_ms => 60000 });
$wallet->ok_json(POST => '/admin/reset-stats', {});
my @held;
for my $n (1 .. 2)
{
	push @held, $wallet->connect;
	$held[-1]->syswrite($wallet->settle_bytes($wallet->trade(trade_id => "held-$n"), new_key()));
	wait_for(sub { $wallet->stats->{requests}{most_in_flight} == $n }, "$n to be held");
}
is(struck($wallet, qw(over)), 'over', 'above_takes_what_is_beyond_so_many_at_a_time');
is($wallet->stats->{requests}{most_in_flight}, 3, 'the_most_at_a_time_is_in_the_stats');
$wallet->ok_json(DELETE => '/admin/faults');

# refusing
sub refused
{
	my ($rule, $message, $name) = @_;
	my $reply = $wallet->request(PUT => '/admin/faults', [ rule(), $rule ]);
	ok($reply->{status} == 400 && $reply->{json}{message} =~ $message, "refuses_$name") or diag $reply->{content};
}
refused({ action => 'explode' }, qr/rule 2: unknown action "explode"/, 'an_unknown_action');
refused({ match => {} }, qr/action/, 'a_rule_without_action');
refused({ action => 'close', aply => \1 }, qr/aply/, 'a_misspelt_member');
refused({ action => 'close', match => { trade => 'x' } }, qr/trade/, 'a_misspelt_match');
refused({ action => 'status' }, qr/needs a status/, 'a_status_without_status');
refused({ action => 'status', status => 99 }, qr/status must be/, 'an_impossible_status');
refused({ action => 'close', match => { p => 2 } }, qr/p must be/, 'an_impossible_probability');
refused({ action => 'close', match => { above => -2 } }, qr/above must be/, 'a_negative_capacity');
refused({ action => 'close', match => { path => 'audit' } }, qr/path must be/, 'an_unknown_path');
refused({ action => 'close', delay_ms => -1 }, qr/delay_ms must be/, 'a_negative_delay');
refused({ action => 'raw' }, qr/needs a body/, 'raw_without_bytes');
refused({ action => 'twice', apply => \0 }, qr/needs apply or a body/, 'a_reply_twice_that_has_no_reply');
refused({ action => 'close', forget => \1 }, qr/forget needs apply/, 'forgetting_what_was_not_applied');
refused('close', qr/./, 'a_rule_that_is_no_object');
is_deeply($wallet->ok_json(GET => '/admin/faults')->{rules}, [], 'a_refused_list_changes_nothing');

# from a file
my $file = File::Temp->new;
print $file '[{"name": "from-file", "action": "status", "status": 503, "match": {"times": 1}}]';
$file->flush;
my $scripted = Walletd->start(args => [ '--faults', "$file" ]);
$scripted->fund_alice_and_bob;
is(struck($scripted, qw(a a b)), 'a b', 'rules_can_come_from_a_file');
is($_->stop, 0, 'ends_cleanly') for $wallet, $twin, $other, $scripted;
done_testing;
