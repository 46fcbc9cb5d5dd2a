package Weather;

# Faults of the wallet, and of the network between.  One of each at a time; each
# ends by itself.  The rules keep the contract: no key is forgotten.

use strict;
use warnings;

use Recovery;
use Schedule;
use Time::HiRes qw(time);

my %rules = (
	'lost reply' => { action => 'close', apply => \1 },
	'unread request' => { action => 'close' },
	'reset after effect' => { action => 'reset', apply => \1 },
	'reset' => { action => 'reset' },
	'closed when reused' => { action => 'close', apply => \1, match => { reused => \1 } },
	'500' => { action => 'status', status => 500 },
	'503 after effect' => { action => 'status', status => 503, apply => \1 },
	'504 later' => { action => 'status', status => 504, apply => \1, delay_ms => 300 },
	'429' => { action => 'status', status => 429, retry_after => 1 },
	'409' => { action => 'status', status => 409 },
	'202' => { action => 'status', status => 202, apply => \1 },
	'202 empty' => { action => 'status', status => 202 },
	'408' => { action => 'status', status => 408 },
	'401' => { action => 'status', status => 401 },
	'404' => { action => 'status', status => 404, content_type => 'text/html', body => 'not here' },
	'302' => { action => 'status', status => 302, location => 'http://127.0.0.1:9/' },
	'garbage' => { action => 'garbage' },
	'garbage after effect' => { action => 'garbage', apply => \1 },
	'empty' => { action => 'empty', apply => \1 },
	'html' => { action => 'html', apply => \1 },
	'raw' => { action => 'raw', body => "HTTP/1.1 2" },
	'truncate' => { action => 'truncate' },
	'drip' => { action => 'drip', bytes => 8, interval_ms => 20 },
	'twice' => { action => 'twice' },
	'wrong trade id' => { action => 'wrong_trade_id' },
	'success as text' => { action => 'success_string' },
	'no settlement id' => { action => 'no_settlement_id' },
	'oversize' => { action => 'oversize', bytes => 200000 },
	'hang' => { action => 'hang' },
	'hang after effect' => { action => 'hang', apply => \1, ms => 3000 },
	'slow' => { action => 'pass', delay_ms => 200, jitter_ms => 400 },
	'effect then slow' => { action => 'pass', reply_delay_ms => 600 },
	'reply after the timeout' => { action => 'pass', reply_delay_ms => 1500 },
);
my @proxy_modes = qw(delay jitter cut_request cut_reply half_open blackhole refuse);

sub catalogue
{
	return (
		{ group => 'wallet', name => 'wallet misbehaves', weight => 16, play => \&misbehave, draw => sub {
			(rules => join(',', sort map { Schedule::one_of(sort keys %rules) } 1 .. 3), p => Schedule::one_of(0.02, 0.1, 0.3, 1),
				seconds => Schedule::between(0.5, 4)) },
			each => [ { rules => join(',', sort keys %rules), p => 0.1, seconds => 2 } ] },
		{ group => 'wallet', name => 'wallet crash', weight => 5, play => \&crash_wallet,
			draw => sub { (seconds => Schedule::one_of(0, 0.3, 1, 4)) } },
		{ group => 'wallet', name => 'wallet refuses', weight => 2, play => \&refuse,
			draw => sub { (seconds => Schedule::between(0.3, 3), action => Schedule::one_of('refuse', 'stall')) },
			each => [ map { { seconds => 0.3, action => $_ } } qw(refuse stall) ] },
		{ group => 'proxy', name => 'proxy', weight => 8, play => \&disturb, draw => sub {
			(mode => Schedule::one_of(@proxy_modes), p => Schedule::one_of(0.05, 0.3, 1), ms => Schedule::one_of(20, 200, 1500),
				bytes => int(rand 900), seconds => Schedule::between(0.5, 4)) },
			each => [ map { { mode => $_, p => 0.3, ms => 200, bytes => 100, seconds => 0.5 } } @proxy_modes ] });
}

# Where it refuses connections it cannot be told anything either.
sub must_listen
{
	my ($arena) = @_;
	die "the wallet refuses connections\n" if $arena->{conditions}{refuses};
}

# 1 = every request: then nobody gets an answer and nothing may be charged.
sub misbehave
{
	my ($arena, $parameters) = @_;
	must_listen($arena);
	my @rules = map { { %{ $rules{$_} }, match => { %{ $rules{$_}{match} // {} }, path => 'any', p => $parameters->{p} + 0 } } }
		split /,/, $parameters->{rules};
	$_->{name} = "rule$_" . int(rand 1e6) for @rules;
	$arena->count_kind("wallet: $_") for split /,/, $parameters->{rules};
	$arena->finish('rules');
	$arena->set_rules(@rules);
	$arena->begin(rules => $parameters->{p} == 1 ? 'down' : 'rain');
	$arena->later(rules => $parameters->{seconds}, sub {
		$arena->set_rules();
		$arena->end('rules');
	});
}

sub refuse
{
	my ($arena, $parameters) = @_;
	must_listen($arena);
	$arena->finish('rules');
	$arena->set_rules({ action => $parameters->{action}, ms => 1000 * $parameters->{seconds}, match => { count => 1 } });
	$arena->begin(refuses => 'down');
	$arena->later(refuses => $parameters->{seconds} + 0.2, sub {
		$arena->end('refuses');
		$arena->insist(sub { $arena->set_rules() });
	});
}

# SIGKILL, and back on the same books.
sub crash_wallet
{
	my ($arena, $parameters) = @_;
	$arena->finish($_) for qw(refuses wallet);
	$arena->begin(wallet => 'down');
	$arena->{wallet}->crash;
	$arena->later(wallet => $parameters->{seconds}, sub {
		my $before = Recovery::settled($arena);
		$arena->{wallet}->launch;
		$arena->set_rules(@{ $arena->{rules} // [] });
		$arena->end('wallet');
		Recovery::await($arena, time, $before) if $arena->weather eq 'up' && $arena->is_loaded;
	});
}

sub disturb
{
	my ($arena, $parameters) = @_;
	$arena->finish('proxy');
	$arena->count_kind("proxy: $parameters->{mode}");
	$arena->{proxy}->set(mode => $parameters->{mode}, ms => $parameters->{ms}, bytes => $parameters->{bytes},
		probability => $parameters->{p});
	$arena->begin(proxy => $parameters->{p} == 1 && $parameters->{mode} =~ /cut|half|black|refuse/ ? 'down' : 'rain');
	$arena->later(proxy => $parameters->{seconds}, sub {
		$arena->{proxy}->set(mode => 'pass');
		$arena->end('proxy');
	});
}

1;
