#!/usr/bin/perl
# Several trades in one request: each with its own key, effect and stored answer,
# one transaction for all, and every misbehaviour.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP ();
use Test::More;
use Walletd qw(new_key);

my $wallet = Walletd->start;
my $json = JSON::PP->new->canonical;
$wallet->fund(qw(alice USDT 9000000 bob BTC 1000));

# Items of a batch: the text of each trade is as it would be sent alone.
sub item
{
	my ($name, %more) = @_;
	return { key => $more{key} // new_key(), body => $wallet->trade(trade_id => $name, %{ $more{fields} // {} }) };
}
sub body { return '[' . join(',', map { qq({"idempotency_key":"$_->{key}","trade":$_->{body}}) } @_) . ']' }
sub post
{
	my ($body, %headers) = @_;
	return $wallet->request(POST => '/api/wallets/settle-batch', $body, %headers);
}
sub settle_batch { return post(body(@_)) }
# Status by key.
sub statuses { my ($reply) = @_; return { map { $_->{idempotency_key} => $_->{status} } @{ $reply->{json} } } }
sub effects { return $wallet->stats->{settle}{effects} }
sub rules { $wallet->faults(@_) }

my @items = map { item("t$_") } 1 .. 3;
my $reply = settle_batch(@items);
is($reply->{status}, 200, 'a_batch_is_answered');
is_deeply(statuses($reply), { map { $_->{key} => 200 } @items }, 'each_item_by_its_key');
is_deeply([ map { $_->{idempotency_key} } @{ $reply->{json} } ], [ map { $_->{key} } reverse @items ], 'in_an_order_of_its_own');
is_deeply([ sort map { $_->{body}{trade_id} } @{ $reply->{json} } ], [qw(t1 t2 t3)], 'with_the_reply_that_each_alone_would_have_had');
is(effects(), 3, 'three_effects');
is($wallet->stats->{batches}{count}, 1, 'in_one_transaction');
is($wallet->stats->{requests}{batch}, 1, 'of_one_request');

# the answer is stored under the key of each, and so is what was asked
my $again = settle_batch(reverse @items);
is_deeply([ sort map { $json->encode($_) } @{ $again->{json} } ], [ sort map { $json->encode($_) } @{ $reply->{json} } ], 'the_same_batch_gets_the_same_answers');
my ($stored) = grep { $_->{idempotency_key} eq $items[0]{key} } @{ $reply->{json} };
my $alone = $wallet->request(POST => '/api/wallets/settle', $items[0]{body}, 'Idempotency-Key' => $items[0]{key});
is_deeply($alone->{json}, $stored->{body}, 'a_trade_sent_alone_is_the_same_request');
is_deeply($wallet->look_up($items[0]{key})->{json}, $stored->{body}, 'and_can_be_looked_up');
is(effects(), 3, 'no_further_effect');
my $other = { %{ $items[0] }, body => $items[0]{body} =~ s/\{/{ /r };
is(settle_batch($other)->{json}[0]{body}{code}, 'KEY_CONFLICT', 'another_byte_is_another_request');

# partial success
my ($good, $poor, $bad, $none) = (item('good'), item('poor', fields => { quote_amount => '99999999' }), item('bad', fields => { base_amount => '-1' }), item('none', fields => { buyer_id => 'nobody' }));
is_deeply(statuses(settle_batch($poor, $good, $bad, $none)), { $good->{key} => 200, $poor->{key} => 422, $bad->{key} => 400, $none->{key} => 422 }, 'a_rejection_is_of_its_item');
is_deeply(statuses(settle_batch($good, $poor)), { $good->{key} => 200, $poor->{key} => 422 }, 'and_is_final');
my $no_trade = new_key();
is(post(qq([{"idempotency_key":"$no_trade"}]))->{json}[0]{body}{code}, 'INVALID_REQUEST', 'an_item_without_a_trade');
is(post(qq( [ { "trade" : $good->{body} , "x" : [ 1 , {"a":"]\\"}"} ] , "idempotency_key" : "$good->{key}" } , {"trade":7,"idempotency_key":"$no_trade"} ] ))->{json}[1]{status}, 200, 'space_and_order_of_members_do_not_matter');

# refused as a whole
my $before = effects();
my $twice = item('twice');
for ([ body($twice, $twice), 400, 'a_key_twice' ], [ '[]', 400, 'no_item' ], [ '{}', 400, 'no_array' ], [ 'x', 400, 'no_json' ], [ '', 400, 'no_body' ],
	[ '[{"idempotency_key":"x","trade":{}}]', 400, 'no_uuid' ], [ '[1]', 400, 'no_object' ], [ body($twice, { key => uc $twice->{key}, body => '{}' }), 400, 'a_key_twice_in_another_case' ],
	[ body(map { item("many$_") } 1 .. 1001), 413, 'too_many' ])
{
	my ($body, $status, $name) = @$_;
	is(post($body)->{status}, $status, "refused_as_a_whole:_$name");
}
is(effects(), $before, 'nothing_was_done');
is($wallet->look_up($twice->{key})->{json}{code}, 'UNKNOWN_KEY', 'nothing_is_remembered');
post(body(item('epoch')), 'Settlement-Epoch' => 5);
$reply = post(body(item('epoch2')), 'Settlement-Epoch' => 4);
is_deeply([ $reply->{status}, $reply->{json}{code}, $reply->{json}{epoch} ], [ 412, 'STALE_EPOCH', 5 ], 'a_stale_epoch_refuses_the_whole');

# misbehaviour: of an item
sub misbehaves
{
	my ($rule, $expected, $name) = @_;
	my @two = map { item("$name-$_") } 1 .. 2;
	my $effects = effects();
	rules({ match => { trade_id => "$name-1" }, %$rule });
	my $got = settle_batch(@two);
	$got = $got->{status} == 599 ? 'no answer' : !ref $got->{json} ? 'no JSON' :
		join ' ', map { ($_->{idempotency_key} eq $two[0]{key} ? 'first' : $_->{idempotency_key} eq $two[1]{key} ? 'second' : 'other') . "=$_->{status}" } @{ $got->{json} };
	is("$got, " . (effects() - $effects) . ' effects', $expected, "an_item_can_$name");
	rules();
}
misbehaves({ action => 'status', status => 503, retry_after => 2 }, 'second=200 first=503, 1 effects', 'be_refused');
misbehaves({ action => 'status', status => 503, apply => \1 }, 'second=200 first=503, 2 effects', 'be_refused_after_it_was_done');
misbehaves({ action => 'leave_out' }, 'second=200, 2 effects', 'be_left_out');
misbehaves({ action => 'twice' }, 'second=200 first=200 first=200, 2 effects', 'stand_there_twice');
misbehaves({ action => 'wrong_key' }, 'second=200 other=200, 2 effects', 'have_another_key');
misbehaves({ action => 'garbage' }, 'no JSON, 1 effects', 'spoil_the_reply');
misbehaves({ action => 'close', apply => \1 }, 'no answer, 2 effects', 'close_after_all_is_done');
misbehaves({ action => 'close' }, 'no answer, 1 effects', 'close_before_it_is_done');
misbehaves({ action => 'truncate' }, 'no answer, 2 effects', 'truncate_the_reply');
misbehaves({ action => 'empty' }, 'second=200 first=200, 1 effects', 'have_no_body');
misbehaves({ action => 'pass', delay_ms => 20, reply_delay_ms => 20 }, 'second=200 first=200, 2 effects', 'be_slow');

# misbehaviour: of the whole
my $whole = item('whole');
rules({ match => { path => 'batch' }, action => 'status', status => 413 });
is(settle_batch($whole)->{status}, 413, 'the_whole_can_be_refused');
is($wallet->look_up($whole->{key})->{status}, 404, 'before_anything_is_done');
rules({ match => { path => 'batch', count => 1 }, action => 'close', apply => \1 });
is(settle_batch($whole)->{status}, 599, 'the_whole_can_lose_its_reply');
is($wallet->look_up($whole->{key})->{status}, 200, 'after_all_was_done');
rules();

# forgotten, as a wallet that breaks the contract does
my ($forgotten, $kept) = (item('forgotten'), item('kept'));
rules({ match => { trade_id => 'forgotten' }, action => 'pass', forget => \1 });
settle_batch($forgotten, $kept) for 1 .. 2;
rules();
is($wallet->audit->{duplicate_trades}, 1, 'a_forgotten_key_pays_again');
is($wallet->stop, 0, 'ends_cleanly');
done_testing;
