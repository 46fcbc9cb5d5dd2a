#!/usr/bin/perl
# One effect per key, whatever is sent how often and at the same time.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Walletd qw(new_key read_reply);

my $wallet = Walletd->start(db => 'file', args => [ '--sync', 'off' ]);
$wallet->fund_alice_and_bob;

my $key = new_key();
my $first = $wallet->settle($wallet->trade, $key);
my $again = $wallet->settle($wallet->trade, $key);
is($again->{status}, 200, 'the_same_request_is_answered_again');
is($again->{content}, $first->{content}, 'byte_for_byte');
is($wallet->audit->{settlements}, 1, 'with_one_effect');
is($wallet->stats->{settle}{replays}, 1, 'and_is_counted_as_a_replay');

my $other = $wallet->settle($wallet->trade(base_amount => '0.6'), $key);
is_deeply([ $other->{status}, $other->{json}{code} ], [ 422, 'KEY_CONFLICT' ], 'another_body_is_a_conflict');
is($wallet->settle($wallet->trade . ' ', $key)->{json}{code}, 'KEY_CONFLICT', 'even_if_only_a_blank_differs');
is($wallet->settle($wallet->trade, $key)->{content}, $first->{content}, 'a_conflict_leaves_the_answer_as_it_was');

my $poor = new_key();
my $no = $wallet->settle($wallet->trade(trade_id => 'poor', quote_amount => '2000000'), $poor);
is($no->{json}{code}, 'INSUFFICIENT_BALANCE', 'a_rejection');
$wallet->fund(qw(alice USDT 5000000));
is($wallet->settle($wallet->trade(trade_id => 'poor', quote_amount => '2000000'), $poor)->{content}, $no->{content},
	'a_rejection_is_final_even_when_the_money_has_come');
is($wallet->look_up($poor)->{status}, 422, 'and_can_be_looked_up');
is($wallet->settle($wallet->trade(trade_id => 'poor', quote_amount => '2000000'), new_key())->{status}, 200,
	'another_key_is_another_try');

for my $bad (undef, '', 'x', 'g' x 36, '11111111222233334444555555555555', ' ' . new_key() . 'x')
{
	my $reply = $wallet->settle($wallet->trade(trade_id => 'nokey'), $bad);
	is_deeply([ $reply->{status}, $reply->{json}{code} ], [ 400, 'INVALID_REQUEST' ],
		'refuses_the_key_' . ($bad // 'that_is_missing'));
}
my $malformed = new_key();
is($wallet->settle('{', $malformed)->{status}, 400, 'a_malformed_body_is_refused');
is($wallet->settle($wallet->trade(trade_id => 'later'), $malformed)->{json}{code}, 'KEY_CONFLICT', 'and_uses_up_its_key');

# the same key on many connections at once: sent first, read later
my $crowd = 40;
my $effects = $wallet->audit->{settlements};
my $same = new_key();
my @sockets = map { $wallet->connect } 1 .. $crowd;
$_->syswrite($wallet->settle_bytes($wallet->trade(trade_id => 'crowd'), $same)) for @sockets;
my %bodies;
for (@sockets)
{
	my (undef, $body) = read_reply($_, \my $buffer);
	$bodies{ $body // 'none' }++;
}
is_deeply([ values %bodies ], [$crowd], 'all_of_a_crowd_with_one_key_get_one_answer') or diag explain \%bodies;
is($wallet->audit->{settlements}, $effects + 1, 'and_there_is_one_effect');

# the same from several processes, each hammering the same few keys
my @keys = map { new_key() } 1 .. 10;
my @children = map {
	my $child = fork // die;
	if ($child == 0)
	{
		for my $round (1 .. 5)
		{
			$wallet->settle($wallet->trade(trade_id => "p$_", base_amount => '0.01'), $keys[$_]) for 0 .. 9;
		}
		POSIX::_exit(0);
	}
	$child;
} 1 .. 4;
waitpid $_, 0 for @children;
is($wallet->audit->{settlements}, $effects + 11, 'several_processes_with_the_same_keys_have_one_effect_each');
is($wallet->audit->{duplicate_trades}, 0, 'no_trade_is_twice_in_the_ledger');

# pipelined: two requests in one packet
my $socket = $wallet->connect;
my $piped = new_key();
$socket->syswrite($wallet->settle_bytes($wallet->trade(trade_id => 'pipe', base_amount => '0.01'), $piped) x 2);
my (undef, $one) = read_reply($socket, \my $buffer);
my (undef, $two) = read_reply($socket, \$buffer);
ok(defined $one && defined $two && $one eq $two, 'a_pipelined_repeat_gets_the_same_answer');

# forgetting
is($wallet->ok_json(POST => '/admin/forget-keys', { keys => [$key] })->{forgotten}, 1, 'a_key_can_be_forgotten');
is($wallet->look_up($key)->{json}{code}, 'UNKNOWN_KEY', 'then_it_is_unknown');
is($wallet->settle($wallet->trade, $key)->{status}, 200, 'and_settles_again');
my $audit = $wallet->audit;
is_deeply([ $audit->{ok}, $audit->{problems} ], [ JSON::PP::false, { duplicate_trades => ['t1'] } ],
	'which_the_audit_shows_as_a_duplicate_trade');
cmp_ok($wallet->ok_json(POST => '/admin/forget-keys', { older_than_ms => 3600000 })->{forgotten}, '==', 0, 'none_is_an_hour_old');
cmp_ok($wallet->ok_json(POST => '/admin/forget-keys', {})->{forgotten}, '>', 10, 'all_can_be_forgotten');
is($wallet->post('/admin/forget-keys', { keyz => [] })->{status}, 400, 'a_misspelt_member_is_refused');
is($wallet->stop, 0, 'ends_cleanly');
done_testing;
