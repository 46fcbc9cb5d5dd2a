#!/usr/bin/perl
# Each kind of misbehaviour, seen as a client sees it: as bytes on a socket.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use IO::Select;
use Time::HiRes qw(time sleep);
use Walletd qw(new_key wait_for read_all read_reply decode);

my $wallet = Walletd->start(db => 'file', args => [ '--sync', 'off' ]);
$wallet->fund(qw(alice USDT 100000000 bob BTC 10000));
my $n = 0;

# A fresh trade under the given rule: what came back, what it did, what a resend says.
sub play
{
	my ($rule, $seconds) = @_;
	my ($body, $key) = ($wallet->trade(trade_id => 'm' . ++$n), new_key());
	$wallet->faults({ match => { count => 1 }, %$rule });
	my $before = $wallet->audit->{settlements};
	my $start = time;
	my ($bytes, $end) = $wallet->raw_settle($body, $key, $seconds // 2);
	my %seen = (bytes => $bytes, end => $end, took => time - $start);
	($seen{head}, $seen{body}) = split /\r\n\r\n/, $bytes, 2;
	($seen{status}) = $bytes =~ m{\AHTTP/1\.1 (\d+)};
	($seen{length}) = $bytes =~ /^Content-Length: (\d+)/mi;
	$seen{lengths} = () = ($seen{head} // '') =~ /^Content-Length:/mgi;
	$seen{json} = decode($seen{body} // '');
	$seen{effects} = $wallet->audit->{settlements} - $before;
	$seen{resend} = $wallet->settle($body, $key);
	$seen{effects_after_resend} = $wallet->audit->{settlements} - $before;
	return \%seen;
}

sub nothing_applied
{
	my ($seen, $name) = @_;
	is_deeply([ @$seen{qw(effects effects_after_resend)}, $seen->{resend}{status} ], [ 0, 1, 200 ], $name);
}

sub applied_once
{
	my ($seen, $name) = @_;
	is_deeply([ @$seen{qw(effects effects_after_resend)}, $seen->{resend}{status} ], [ 1, 1, 200 ], $name);
}

# A connection that stays open is what a reply without "close" leaves: a tenth of a second is enough to see it.
my $brief = $ENV{WALLETD_WRAPPER} ? 2 : 0.1;

subtest status => sub {
	for my $status (500, 502, 503, 504, 429, 409, 202, 401, 403, 404, 408, 425, 301)
	{
		my $seen = play({ action => 'status', status => $status, retry_after => 7, location => '/elsewhere' }, $brief);
		is($seen->{status}, $status, "status_${status}_is_answered");
		like($seen->{head}, qr/^Retry-After: 7\r?$/mi, 'with_retry_after');
		like($seen->{head}, qr{^Location: /elsewhere\r?$}mi, 'with_location');
		nothing_applied($seen, 'and_without_effect');
		ok($seen->{json}{error} && !$seen->{json}{code}, 'its_body_has_no_code');
	}
	my $seen = play({ action => 'status', status => 500, apply => \1 }, $brief);
	is($seen->{status}, 500, 'apply_then_500');
	applied_once($seen, 'has_its_effect');
	$seen = play({ action => 'status', status => 422, body => { code => 'KEY_CONFLICT' } }, $brief);
	is_deeply($seen->{json}, { code => 'KEY_CONFLICT' }, 'a_body_may_be_json');
	$seen = play({ action => 'status', status => 200, body => 'OK', content_type => 'text/plain' }, $brief);
	is($seen->{body}, 'OK', 'or_any_text');
	like($seen->{head}, qr{^Content-Type: text/plain\r?$}mi, 'of_any_type');
};

subtest close_and_reset => sub {
	my $seen = play({ action => 'close' });
	is_deeply([ @$seen{qw(bytes end)} ], [ '', 'eof' ], 'read_then_close_sends_nothing');
	nothing_applied($seen, 'and_has_no_effect');
	$seen = play({ action => 'close', apply => \1 });
	is_deeply([ @$seen{qw(bytes end)} ], [ '', 'eof' ], 'apply_then_drop_sends_nothing');
	applied_once($seen, 'but_has_its_effect');
	$seen = play({ action => 'reset' });
	is_deeply([ @$seen{qw(bytes end)} ], [ '', 'reset' ], 'a_reset_is_a_reset');
	nothing_applied($seen, 'without_effect');
	$seen = play({ action => 'reset', apply => \1 });
	is($seen->{end}, 'reset', 'apply_then_reset');
	applied_once($seen, 'has_its_effect');
};

subtest reused_connection => sub {
	$wallet->faults({ match => { reused => \1 }, action => 'close' });
	my $socket = $wallet->connect;
	my ($body, $key) = ($wallet->trade(trade_id => 'reused'), new_key());
	$socket->syswrite($wallet->settle_bytes($wallet->trade(trade_id => 'first'), new_key()));
	my ($head) = read_reply($socket, \my $buffer);
	like($head, qr/200 OK/, 'the_first_request_of_a_connection_is_answered');
	$socket->syswrite($wallet->settle_bytes($body, $key));
	is_deeply([ read_all($socket, 2) ], [ '', 'eof' ], 'the_second_is_read_and_the_connection_closed');
	is($wallet->look_up($key)->{json}{code}, 'UNKNOWN_KEY', 'without_effect');
	is($wallet->settle($body, $key)->{status}, 200, 'on_a_new_connection_it_settles');
	$wallet->faults({ match => { reused => \1 }, action => 'close', apply => \1 });
	my $kept = $wallet->connect;
	$kept->syswrite($wallet->settle_bytes($wallet->trade(trade_id => 'kept-1'), new_key()));
	read_reply($kept, \my $rest);
	my $lost = new_key();
	$kept->syswrite($wallet->settle_bytes($wallet->trade(trade_id => 'kept-2'), $lost));
	is_deeply([ read_all($kept, 2) ], [ '', 'eof' ], 'apply_then_drop_on_a_reused_connection');
	is($wallet->look_up($lost)->{status}, 200, 'has_its_effect');
};

subtest bad_bodies => sub {
	my $seen = play({ action => 'garbage' }, $brief);
	is_deeply([ @$seen{qw(status length json)} ], [ 200, 64, undef ], 'garbage_is_200_and_no_json');
	nothing_applied($seen, 'without_effect');
	$seen = play({ action => 'garbage', apply => \1, bytes => 1000 }, $brief);
	is(length $seen->{body}, 1000, 'garbage_of_a_length');
	applied_once($seen, 'with_effect');
	$seen = play({ action => 'empty', apply => \1 }, $brief);
	is_deeply([ @$seen{qw(status length body)} ], [ 200, 0, '' ], 'empty_is_200_without_a_body');
	applied_once($seen, 'with_effect');
	$seen = play({ action => 'html' }, $brief);
	is($seen->{status}, 502, 'html_is_502');
	like($seen->{bytes}, qr{^Content-Type: text/html.*<html>}msi, 'with_a_page');
	is(play({ action => 'html', status => 200 }, $brief)->{status}, 200, 'or_as_told');
	$seen = play({ action => 'wrong_trade_id' }, $brief);
	is($seen->{json}{trade_id}, 'another-trade', 'the_wrong_trade_is_echoed');
	ok($seen->{json}{success}, 'with_success');
	applied_once($seen, 'and_effect');
	$seen = play({ action => 'success_string' }, $brief);
	like($seen->{body}, qr/"success":"true"/, 'success_is_a_string');
	applied_once($seen, 'with_effect');
	$seen = play({ action => 'no_settlement_id' }, $brief);
	ok($seen->{json}{success} && !exists $seen->{json}{settlement_id}, 'the_settlement_id_is_missing');
	applied_once($seen, 'with_effect');
	$seen = play({ action => 'oversize', bytes => 200000 }, $brief);
	ok($seen->{json}{success} && length $seen->{body} > 200000, 'the_reply_is_valid_but_far_too_long');
	applied_once($seen, 'with_effect');
};

subtest lies_about_length => sub {
	my $seen = play({ action => 'twice' }, $brief);
	my ($first, $second) = $seen->{bytes} =~ /\A(HTTP\/1\.1 .*?)(HTTP\/1\.1 .*)\z/s;
	ok(defined $second, 'two_replies_come_for_one_request');
	is($seen->{lengths}, 1, 'each_with_one_length');
	my @bodies = map { decode((split /\r\n\r\n/, $_, 2)[1]) } $first, $second;
	is_deeply($bodies[0], $bodies[1], 'the_same_twice');
	is($seen->{end}, 'timeout', 'and_the_connection_stays_open');
	applied_once($seen, 'with_one_effect');

	$wallet->faults({ match => { count => 1 }, action => 'twice' });
	my $socket = $wallet->connect;
	$socket->syswrite($wallet->settle_bytes($wallet->trade(trade_id => 'before'), new_key()));
	read_reply($socket, \my $buffer);
	$socket->syswrite($wallet->settle_bytes($wallet->trade(trade_id => 'after'), new_key()));
	my (undef, $stale) = read_reply($socket, \$buffer);
	is(decode($stale)->{trade_id}, 'before', 'so_the_next_request_reads_the_stale_copy');
	my (undef, $own) = read_reply($socket, \$buffer);
	is(decode($own)->{trade_id}, 'after', 'before_its_own_reply');

	$seen = play({ action => 'truncate' });
	is($seen->{end}, 'eof', 'a_truncated_reply_ends');
	is($seen->{lengths}, 1, 'that_promised_one_length');
	cmp_ok(length $seen->{body}, '<', $seen->{length}, 'before_its_content_length');
	cmp_ok(length $seen->{body}, '>', 0, 'but_after_a_part');
	applied_once($seen, 'with_effect');
	$seen = play({ action => 'truncate', bytes => 0 });
	is_deeply([ @$seen{qw(body end)} ], [ '', 'eof' ], 'or_right_after_the_head');
	$seen = play({ action => 'truncate', apply => \0, body => '{"success":true}', bytes => 3 });
	is($seen->{body}, '{"s', 'a_given_body_is_truncated_too');
	nothing_applied($seen, 'without_effect');

	$seen = play({ action => 'raw', body => "HTTP/1.1 200 OK\r\nConte" });
	is_deeply([ @$seen{qw(bytes end)} ], [ "HTTP/1.1 200 OK\r\nConte", 'eof' ], 'raw_bytes_are_sent_as_they_are');
	nothing_applied($seen, 'without_effect');
	$seen = play({ action => 'raw', apply => \1, body => "SSH-2.0-x\r\n" });
	is($seen->{bytes}, "SSH-2.0-x\r\n", 'even_if_they_are_not_http');
	applied_once($seen, 'with_effect');
};

subtest slowness => sub {
	my $seen = play({ action => 'drip', bytes => 40, interval_ms => 50 }, 3);
	applied_once($seen, 'a_drip_has_its_effect');
	is(length $seen->{body}, $seen->{length}, 'and_comes_whole');
	my ($body, $key) = ($wallet->trade(trade_id => 'drops'), new_key());
	$wallet->faults({ action => 'drip', bytes => 10, interval_ms => 20 });
	my $socket = $wallet->connect;
	my $start = time;
	$socket->syswrite($wallet->settle_bytes($body, $key));
	read_reply($socket, \my $buffer);
	cmp_ok(time - $start, '>', 0.2, 'in_pieces_over_time');
	$wallet->faults();

	$wallet->faults({ match => { trade_id => 'slow' }, action => 'pass', delay_ms => 1500 });
	$key = new_key();
	$socket = $wallet->connect;
	$start = time;
	$socket->syswrite($wallet->settle_bytes($wallet->trade(trade_id => 'slow'), $key));
	is($wallet->settle($wallet->trade(trade_id => 'quick'), new_key())->{status}, 200, 'one_slow_request_holds_up_no_other');
	cmp_ok(time - $start, '<', 1.2, 'meanwhile');
	is($wallet->look_up($key)->{status}, 404, 'a_delay_comes_before_the_effect');
	my ($head) = read_reply($socket, \my $rest);
	like($head, qr/200 OK/, 'then_it_is_answered');
	cmp_ok(time - $start, '>=', 1.49, 'late');

	$wallet->faults({ match => { trade_id => 'late' }, action => 'pass', reply_delay_ms => 1500 });
	$key = new_key();
	$socket = $wallet->connect;
	$socket->syswrite($wallet->settle_bytes($wallet->trade(trade_id => 'late'), $key));
	wait_for(sub { $wallet->look_up($key)->{status} == 200 }, 'the effect', 1.2);
	pass('a_reply_delay_comes_after_the_effect');
	ok(!IO::Select->new($socket)->can_read(0), 'with_no_reply_yet');
	($head) = read_reply($socket, \my $more);
	like($head, qr/200 OK/, 'then_it_is_answered');
	$wallet->faults({ action => 'pass', delay_ms => 50, jitter_ms => 100 });
	$start = time;
	$wallet->settle($wallet->trade(trade_id => 'jitter'), new_key());
	cmp_ok(time - $start, '>=', 0.05, 'jitter_only_adds');
};

subtest hanging => sub {
	my $seen = play({ action => 'hang', ms => 400 }, 3);
	is_deeply([ @$seen{qw(bytes end)} ], [ '', 'eof' ], 'a_hang_of_a_length_ends_without_a_byte');
	cmp_ok($seen->{took}, '>=', 0.39, 'after_its_time');
	nothing_applied($seen, 'without_effect');
	$seen = play({ action => 'hang', apply => \1 }, $brief);
	is_deeply([ @$seen{qw(bytes end)} ], [ '', 'timeout' ], 'a_hang_stays_silent');
	applied_once($seen, 'apply_then_hang_has_its_effect');
	$wallet->faults({ action => 'hang' });
	my @sockets = map { $wallet->connect } 1 .. 50;
	$_->syswrite($wallet->settle_bytes($wallet->trade(trade_id => "hang-$n"), new_key())) for @sockets;
	wait_for(sub { $wallet->stats->{faults}{hang} >= 50 }, '50 hanging requests');
	close $_ for @sockets;
	my $open = sub { my @fds = glob "/proc/$wallet->{pid}/fd/*"; scalar @fds };
	wait_for(sub { $open->() < 40 }, 'the connections of clients that left to be closed');
	pass('clients_that_leave_are_noticed');
};

subtest refusing => sub {
	my $other = $wallet->connect;
	my $seen = do {
		$wallet->faults({ match => { count => 1 }, action => 'refuse', ms => 1500 });
		my ($bytes, $end) = $wallet->raw_settle($wallet->trade(trade_id => 'refuse'), new_key(), 2);
		[ $bytes, $end ];
	};
	is_deeply($seen, [ '', 'eof' ], 'the_request_is_dropped');
	is((read_all($other, 1))[1], 'eof', 'and_so_are_other_connections');
	ok(!$wallet->connect, 'new_ones_are_refused');
	wait_for(sub { $wallet->connect }, 'the port to be open again', 10);
	pass('until_the_time_is_over');
	is($wallet->settle($wallet->trade(trade_id => 'refuse'), new_key())->{status}, 200, 'then_it_works');
	is($wallet->ok_json(POST => '/admin/refuse', { ms => 1500 })->{ms}, 1500, 'an_administrator_can_do_the_same');
	ok(!$wallet->connect, 'with_the_same_result');
	wait_for(sub { $wallet->connect }, 'the port to be open again', 10);

	$wallet->faults({ match => { count => 1 }, action => 'stall', ms => 1500 });
	$wallet->raw_settle($wallet->trade(trade_id => 'stall'), new_key(), 2);
	my $start = time;
	my $socket = $wallet->connect;
	ok($socket, 'while_stalled_the_kernel_still_connects');
	$socket->syswrite($wallet->settle_bytes($wallet->trade(trade_id => 'stalled'), new_key()));
	my ($head) = read_reply($socket, \my $buffer);
	like($head, qr/200 OK/, 'and_the_answer_comes');
	cmp_ok(time - $start, '>=', 0.5, 'when_the_stall_is_over');
};

subtest look_ups => sub {
	$wallet->faults({ match => { path => 'lookup', times => 1 }, action => 'status', status => 503 },
		{ match => { path => 'lookup', nth => 2 }, action => 'garbage', apply => \1 });
	my $key = new_key();
	is($wallet->settle($wallet->trade(trade_id => 'look'), $key)->{status}, 200, 'a_rule_for_look_ups_spares_settling');
	is($wallet->look_up($key)->{status}, 503, 'a_look_up_can_fail');
	is($wallet->look_up($key)->{json}{success}, JSON::PP::true, 'and_then_tell');
	$wallet->faults({ match => { path => 'any' }, action => 'status', status => 500 });
	is_deeply([ $wallet->look_up($key)->{status}, $wallet->settle($wallet->trade(trade_id => 'any'), new_key())->{status} ],
		[ 500, 500 ], 'any_is_both');
	is($wallet->get('/healthz')->{status}, 200, 'but_nothing_else');
	$wallet->faults();
};

my $audit = $wallet->audit;
ok($audit->{ok}, 'after_all_that_the_ledger_is_sound') or diag explain $audit;

subtest forgetting => sub {
	my $seen = play({ action => 'pass', forget => \1 }, $brief);
	is($seen->{json}{success}, JSON::PP::true, 'a_forgetful_wallet_answers_well');
	is_deeply([ @$seen{qw(effects effects_after_resend)} ], [ 1, 2 ], 'and_pays_again_for_the_same_key');
	$seen = play({ action => 'close', apply => \1, forget => \1 }, $brief);
	is_deeply([ @$seen{qw(effects effects_after_resend)} ], [ 1, 2 ], 'also_when_it_dropped_the_reply');
	is($wallet->audit->{duplicate_trades}, 2, 'the_audit_counts_both');
};

is($wallet->stop, 0, 'ends_cleanly');
done_testing;
