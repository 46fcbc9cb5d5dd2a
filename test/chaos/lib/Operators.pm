package Operators;

# What people do meanwhile: other settings, locks on the trades, long
# transactions, and the operator's verbs.  What stops or slows sending ends by
# itself after a while.

use strict;
use warnings;

use Calm;
use Schedule;
use Time::HiRes qw(time sleep);

my %settings = (
	workers => [ 1, 2, 3, 4 ], concurrency => [ 4, 32, 128 ], request_timeout => [ '400ms', '1s', '2s' ],
	connect_timeout => [ '100ms', '500ms' ], max_attempts => [ 2, 3, 6 ], retry_initial_backoff => [ '10ms', '200ms' ],
	retry_max_backoff => [ '300ms', '2s' ], poll_interval => [ '20ms', '1s' ], shutdown_timeout => [ '0', '1s', '3s' ],
	breaker_failures => [ 2, 10, 50 ], breaker_max_open => [ '100ms', '2s' ], apply_timeout => [ '100ms', '2s' ],
	attempt_history => [ 'all', 'failures' ], pending_timeout => [ '500ms', '10min' ], max_response_size => [ '1kB', '64kB' ]);

sub catalogue
{
	my $some_seconds = sub { (seconds => Schedule::between(0.5, 3)) };
	return (
		{ group => 'settings', name => 'reload', weight => 6, play => \&reload, draw => sub {
			my @names = sort keys %settings;
			return (settings => join(',', map { my $name = Schedule::one_of(@names); "$name:" . Schedule::one_of(@{ $settings{$name} }) } 1 .. 3)) },
			each => [ { settings => join ',', map { my $name = $_; map { "$name:$_" } @{ $settings{$name} } } sort keys %settings } ] },
		{ group => 'settings', name => 'rate limit', weight => 1, play => temporary('rate_limit', 300), draw => $some_seconds },
		{ group => 'settings', name => 'disabled', weight => 1, play => temporary('enabled', 'off'), draw => $some_seconds },
		{ group => 'lock', name => 'trades locked', weight => 3, draw => $some_seconds,
			play => holding(locks => 'held', 'SELECT count(*) FROM (SELECT FROM public.trades
				WHERE trade_id IN (SELECT trade_id FROM settlement.queue LIMIT 200) FOR UPDATE) t') },
		{ group => 'lock', name => 'table locked', weight => 2, draw => sub { (seconds => 1) },
			play => locking('public.trades') },
		{ group => 'lock', name => 'partition locked', weight => 1, draw => sub { (seconds => 1) },
			play => locking('public.parted_btc') },
		{ group => 'lock', name => 'long transaction', weight => 2, draw => sub { (seconds => Schedule::between(3, 20)) },
			play => holding(snapshot => undef, 'SELECT pg_current_xact_id()') },
		(map { { group => 'operator', %$_ } }
			{ name => 'pause a symbol', weight => 2, play => \&pause_symbol, draw => sub {
				(symbol => Schedule::one_of('BTC/USDT', 'SOL-USDT'), $some_seconds->()) } },
			{ name => 'pause', weight => 1, play => between_verbs(pause => q{settlement.pause('chaos')}, 'settlement.resume()'), draw => $some_seconds },
			{ name => 'open the breaker', weight => 1, draw => $some_seconds,
				play => between_verbs(breaker => q{settlement.breaker_open('chaos')}, 'settlement.breaker_close()') },
			{ name => 'close the breaker', weight => 1, play => verb('SELECT settlement.breaker_close()') },
			{ name => 'redrive', weight => 2, play => verb(
				q{SELECT sum(redriven) FROM settlement.redrive_where(all_rows => true, dry_run => false, max => 500, reason => 'chaos')}) },
			{ name => 'redrive unknown', weight => 1, play => verb(
				q{SELECT sum(redriven) FROM settlement.redrive_where(status => 'UNKNOWN', dry_run => false, max => 500, reason => 'chaos')}) },
			{ name => 'look up', weight => 1, play => verb(
				q{SELECT sum(resolved) FROM settlement.resolve_where(all_rows => true, dry_run => false, max => 500, reason => 'chaos')}) },
			{ name => 'restart worker', weight => 2, play => verb(
				q{SELECT settlement.restart_worker(slot) FROM settlement.workers WHERE state = 'running' ORDER BY slot LIMIT 1}) },
			{ name => 'rescan', weight => 1, play => verb('SELECT settlement.rescan()') }));
}

sub verb { my ($sql) = @_; return sub { $_[0]->ask($sql) } }

sub reload
{
	my ($arena, $parameters) = @_;
	for (split /,/, $parameters->{settings})
	{
		my ($name, $value) = split /:/;
		$arena->ask("ALTER SYSTEM SET settlement.$name = '$value'");
	}
	$arena->ask('SELECT pg_reload_conf()');
}

sub set_one
{
	my ($arena, $name, $value) = @_;
	$arena->ask(defined $value ? "ALTER SYSTEM SET settlement.$name = '$value'" : "ALTER SYSTEM RESET settlement.$name");
	$arena->ask('SELECT pg_reload_conf()');
}

# Ends again, whatever happens to the server in between.
sub temporary
{
	my ($name, $value) = @_;
	return sub {
		my ($arena, $parameters) = @_;
		$arena->finish($name);
		$arena->begin($name => 'held');
		set_one($arena, $name, $value);
		$arena->later($name => $parameters->{seconds}, sub {
			$arena->insist(sub { set_one($arena, $name) });
			$arena->end($name);
		});
	};
}

sub between_verbs
{
	my ($name, $first, $last) = @_;
	return sub {
		my ($arena, $parameters) = @_;
		$arena->finish($name);
		$arena->begin($name => 'held');
		$arena->ask("SELECT $first");
		$arena->later($name => $parameters->{seconds}, sub {
			$arena->insist(sub { $arena->ask("SELECT $last") });
			$arena->end($name);
		});
	};
}

sub pause_symbol
{
	my ($arena, $parameters) = @_;
	my $symbol = $parameters->{symbol};
	between_verbs("pause $symbol", "settlement.pause('chaos', '$symbol')", "settlement.resume('$symbol')")->($arena, $parameters);
}

# A transaction of its own that holds something, until it ends or the server does.
sub holding
{
	my ($name, $kind, $sql) = @_;
	return sub {
		my ($arena, $parameters) = @_;
		$arena->finish($name);
		my $session = $arena->session;
		$session->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
		$arena->begin($name => $kind) if $kind;
		my $ok = eval { $session->do($sql); 1 };
		my $error = $@;
		$arena->later($name => $ok ? $parameters->{seconds} : 0, sub {
			eval { $session->do('ROLLBACK'); $session->disconnect };
			$arena->end($name);
		});
		die $error unless $ok;
	};
}

# Prepared transactions hold locks of their own, for as long as nobody decides.
sub locking
{
	my ($table) = @_;
	my $hold = holding(table => 'other', "LOCK TABLE $table IN ACCESS EXCLUSIVE MODE");
	return sub {
		my ($arena, $parameters) = @_;
		Calm::finish_prepared($arena);
		$hold->($arena, $parameters);
	};
}

1;
