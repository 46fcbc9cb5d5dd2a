package Ledgers;

# The final question of a run with faults: do the trade tables and the wallet's own
# books tell the same story, and is no trade in it that should not be, nor missing?
#
#   my $ledgers = Ledgers->new(node => $node, wallet => $walletd,
#       trades => 'SELECT * FROM trades UNION ALL SELECT * FROM more_trades',
#       acknowledged => $file,      # ids whose COMMIT was acknowledged, one per line
#       maybe => $file);            # ids whose COMMIT got no answer
#   my $found = $ledgers->check;
#   print $ledgers->timeline($_) for @{ $found->{lost} };
#
# trades: a query with the columns of Settlement.pm's public.trades and the settlement_*
# columns; trade ids are text and no id is in two tables.  Either file may be left out;
# an id may be in acknowledged more than once.  Ask it when everything is drained.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use lib dirname(__FILE__) . '/../../lib';

use Witness;

# So many ids of each kind of violation are named; all are counted.
my $named = 1000;

# Violations: each a query that yields one text per case.
my @violations = (
	duplicates => <<'SQL',
SELECT trade_id FROM witness.paid WHERE payments > 1
SQL

	# Acknowledged, and there is no row, or nothing anywhere will ever end it.
	lost => <<'SQL',
SELECT a.trade_id FROM witness.acknowledged a LEFT JOIN witness.rows r USING (trade_id)
WHERE r.trade_id IS NULL OR (NOT r.terminal AND NOT r.under_way)
SQL

	phantom => <<'SQL',
SELECT trade_id FROM witness.paid p WHERE NOT EXISTS (SELECT FROM witness.rows r WHERE r.trade_id = p.trade_id)
SQL

	# A row that nobody was told of, nor might have been: its transaction was rolled back.
	unannounced => <<'SQL',
SELECT trade_id FROM witness.rows r WHERE EXISTS (SELECT FROM witness.acknowledged)
    AND NOT EXISTS (SELECT FROM witness.acknowledged a WHERE a.trade_id = r.trade_id)
    AND NOT EXISTS (SELECT FROM witness.maybe m WHERE m.trade_id = r.trade_id)
SQL

	not_terminal => <<'SQL',
SELECT trade_id FROM witness.rows WHERE NOT terminal OR under_way
SQL

	balance_differences => <<'SQL',
SELECT format('%s %s: the wallet has %s, should have %s', account, currency, coalesce(b.amount, 0),
              coalesce(d.amount, 0) + coalesce(e.amount, 0))
FROM (SELECT account, currency, sum(amount) AS amount FROM witness.ledger WHERE kind <> 'settlement' GROUP BY 1, 2) d
FULL JOIN (SELECT account, currency, sum(amount) AS amount FROM witness.expected_postings GROUP BY 1, 2) e USING (account, currency)
FULL JOIN witness.balances b USING (account, currency)
WHERE coalesce(b.amount, 0) <> coalesce(d.amount, 0) + coalesce(e.amount, 0)
SQL

	state_differences => <<'SQL',
SELECT trade_id || ': ' || what FROM (
    SELECT trade_id, 'the row says ' || coalesce(status, 'nothing') || ', the wallet paid as ' || p.settlement_id AS what
    FROM witness.rows r JOIN witness.paid p USING (trade_id)
    WHERE status IS DISTINCT FROM 'SETTLED' AND status IS DISTINCT FROM 'UNKNOWN'
    UNION ALL
    SELECT trade_id, 'the row says SETTLED, the wallet did not pay'
    FROM witness.rows r WHERE status = 'SETTLED' AND NOT EXISTS (SELECT FROM witness.paid p WHERE p.trade_id = r.trade_id)
    UNION ALL
    SELECT trade_id, format('the row says settlement %s, the wallet %s', coalesce(r.settlement_id, 'NULL'), p.settlement_id)
    FROM witness.rows r JOIN witness.paid p USING (trade_id)
    WHERE status = 'SETTLED' AND r.settlement_id IS DISTINCT FROM p.settlement_id AND p.payments = 1
    UNION ALL
    SELECT trade_id, format('%s %s: the wallet moved %s, the row means %s', account, currency, moved, due)
    FROM (SELECT trade_id, account, currency, sum(moved) AS moved, sum(due) AS due
          FROM (SELECT trade_id, account, currency, amount AS moved, 0 AS due FROM witness.ledger WHERE kind = 'settlement'
                UNION ALL
                SELECT trade_id, account, currency, 0, amount FROM witness.expected_postings) x
          GROUP BY 1, 2, 3 HAVING sum(moved) <> sum(due)) y
    JOIN witness.rows r USING (trade_id) JOIN witness.paid p USING (trade_id)
    WHERE r.status = 'SETTLED' AND p.payments = 1
    UNION ALL
    SELECT trade_id, 'the row says ' || status || ', but there is no dead letter and no act of an operator'
    FROM witness.rows r WHERE status IN ('FAILED', 'UNKNOWN') AND NOT dead
        AND NOT EXISTS (SELECT FROM settlement.audit_log a WHERE a.trade_id = r.trade_id)
    UNION ALL
    SELECT trade_id, 'the row says ' || status || ', but it is a dead letter'
    FROM witness.rows r WHERE dead AND status NOT IN ('FAILED', 'UNKNOWN')
    UNION ALL
    SELECT trade_id, 'a person has to look: ' || kind FROM settlement.discrepancies) z
SQL
);

my @lists = grep { !/\n/ } @violations;

sub new
{
	my ($class, %options) = @_;
	my $self = bless { database => 'postgres', trades => 'SELECT * FROM public.trades', %options }, $class;
	$self->{witness} = Witness->new(map { $_ => $self->{$_} } qw(node wallet database trades));
	return $self;
}

# { trades, settled, dead, unknown, maybe_committed, maybe_absent, counts => { kind => n },
#   duplicates => [ids], lost => [ids], phantom => [ids], unannounced => [ids],
#   not_terminal => [ids], balance_differences => [texts], state_differences => [texts],
#   violations => n, summary => text }
# UNKNOWN rows are no violation here, whether the wallet paid or not: they say so.
sub check
{
	my ($self) = @_;
	$self->load;
	my %found = map { split /=/, $_, 2 } split /\n/, $self->{witness}->sql(<<'SQL');
SELECT 'trades=' || count(*) FROM witness.rows
UNION ALL SELECT 'settled=' || count(*) FROM witness.rows WHERE status = 'SETTLED'
UNION ALL SELECT 'dead=' || count(*) FROM witness.rows WHERE dead
UNION ALL SELECT 'unknown=' || count(*) FROM witness.rows WHERE status = 'UNKNOWN'
UNION ALL SELECT 'maybe_committed=' || count(*) FROM witness.maybe JOIN witness.rows USING (trade_id)
UNION ALL SELECT 'maybe_absent=' || count(*) FROM witness.maybe m LEFT JOIN witness.rows r USING (trade_id) WHERE r.trade_id IS NULL
SQL
	$found{violations} = 0;
	my %query = @violations;
	for my $list (@lists)
	{
		my ($n, @cases) = split /\n/, $self->{witness}->sql(<<"SQL");
SET work_mem = '256MB'; SET max_parallel_workers_per_gather = 0;
CREATE TEMP TABLE cases (what) AS $query{$list};
SELECT count(*)::text FROM cases;
SELECT replace(what, E'\\n', ' ') FROM (SELECT what FROM cases ORDER BY 1 LIMIT $named) x;
SQL
		$found{$list} = \@cases;
		$found{counts}{$list} = $n;
		$found{violations} += $n;
	}
	$found{summary} = join ', ', (map { "$_ $found{$_}" } qw(trades settled dead unknown)),
		map { "$_ $found{counts}{$_}" } @lists;
	return \%found;
}

# One row per trade, one per paid trade, and the ids that were acknowledged.
sub load
{
	my ($self) = @_;
	my $witness = $self->{witness};
	$witness->read;
	$witness->sql(<<'SQL');
SET client_min_messages = warning; SET work_mem = '256MB'; SET max_parallel_workers_per_gather = 0;
DROP TABLE IF EXISTS witness.rows, witness.paid, witness.acknowledged, witness.maybe, witness.expected_postings, witness.ids;
CREATE UNLOGGED TABLE witness.ids (trade_id text);
CREATE UNLOGGED TABLE witness.acknowledged (trade_id text);
CREATE UNLOGGED TABLE witness.maybe (trade_id text);
CREATE UNLOGGED TABLE witness.expected_postings AS SELECT * FROM witness.expected;
CREATE UNLOGGED TABLE witness.paid AS
SELECT trade_id, count(DISTINCT transfer) AS payments, min(settlement_id) AS settlement_id
FROM witness.ledger WHERE kind = 'settlement' GROUP BY trade_id;
CREATE UNLOGGED TABLE witness.rows AS
SELECT t.trade_id::text AS trade_id, t.settlement_status::text AS status, t.settlement_id::text AS settlement_id,
       coalesce(t.settlement_status::text IN ('SETTLED', 'FAILED', 'UNKNOWN', 'REVERSED'), false) AS terminal,
       w.trade_id IS NOT NULL AS under_way, d.trade_id IS NOT NULL AS dead
FROM witness.trades t
LEFT JOIN (SELECT trade_id FROM settlement.queue UNION SELECT trade_id FROM settlement.deferred
           UNION SELECT trade_id FROM settlement.unapplied) w ON w.trade_id = t.trade_id::text
LEFT JOIN (SELECT DISTINCT trade_id FROM settlement.dlq) d ON d.trade_id = t.trade_id::text
WHERE t.settlement_status IS NOT NULL;
SQL
	for my $file (qw(acknowledged maybe))
	{
		next if !defined $self->{$file} || !-e $self->{$file};
		$witness->copy_in('witness.ids', $self->{$file}, q{ (FORMAT csv, DELIMITER E'\x02', QUOTE E'\x01')});
		$witness->sql(<<"SQL");
INSERT INTO witness.$file SELECT DISTINCT trade_id FROM witness.ids WHERE trade_id <> '';
TRUNCATE witness.ids;
SQL
	}
	$witness->sql('ANALYZE witness.rows; ANALYZE witness.paid; ANALYZE witness.acknowledged;'
		. ' ANALYZE witness.maybe; ANALYZE witness.expected_postings');
}

# All that is known of a trade, for people.
sub timeline
{
	my ($self, $id) = @_;
	my $quoted = $id =~ s/'/''/gr;
	my $text = "---- trade $id\n";
	my @sections = (
		row => "SELECT to_json(t) FROM witness.trades t WHERE trade_id::text = '$quoted'",
		timeline => "SELECT concat_ws('  ', at, what, details) FROM settlement.timeline('$quoted')",
		explain => "SELECT * FROM settlement.explain('$quoted')",
		attempts => "SELECT to_json(a) FROM settlement.attempts a WHERE trade_id = '$quoted' ORDER BY at",
		'dead letters' => "SELECT to_json(d) FROM settlement.dlq d WHERE trade_id = '$quoted'",
		discrepancies => "SELECT to_json(d) FROM settlement.discrepancies d WHERE trade_id = '$quoted'");
	while (my ($name, $query) = splice @sections, 0, 2)
	{
		my $answer = eval { $self->{witness}->sql($query) } // "(no answer: $@)";
		$text .= "-- $name\n$answer\n" if $answer ne '';
	}
	for my $query (
		"SELECT t.at, t.key, t.settlement_id, p.account, p.currency, p.amount FROM transfers t JOIN postings p ON p.transfer = t.id WHERE t.trade_id = '$quoted'",
		"SELECT at, key, status, body FROM answers WHERE key IN (SELECT key FROM transfers WHERE trade_id = '$quoted')")
	{
		IPC::Run::run($self->{witness}->wallet_command($query), '>', \my $answer, '2>', \my $err);
		$text .= "-- wallet\n$answer$err" if "$answer$err" ne '';
	}
	return $text . $self->log_lines($id);
}

# Lines of the server's log that name the trade.
sub log_lines
{
	my ($self, $id) = @_;
	my $text = '';
	open my $log, '<', $self->{node}->logfile or return '';
	while (my $line = <$log>)
	{
		$text .= $line if $line =~ /(?<![\w-])\Q$id\E(?![\w-])/;
	}
	return $text eq '' ? '' : "-- server log\n$text";
}

1;
