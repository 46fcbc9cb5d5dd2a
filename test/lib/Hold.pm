package Hold;

# Stop a worker in the middle of its transaction, at a place that the test knows:
# where it deletes from settlement.claims, inserts into dlq, deferred or unapplied,
# or updates a trade row.  'claims2' stops a second one at claims, while the first is
# held there.  It holds what it has done uncommitted until the test
# lets it go on, or lets it fail.  Other sessions pass, unless they update trades
# (where the owner of the table cannot see who it is).
#
#   my $hold = Hold->new($s);
#   $hold->at('dlq');          # the next worker that comes there stops, one at a time
#   ...
#   $hold->reached('dlq');     # one is there
#   $hold->release('dlq');     # or ->raise_at('dlq'): it raises, once or more often,
#                              # until ->release
#
# It waits in pg_sleep, not for a lock: the workers' lock_timeout does not end it.

use strict;
use warnings;

use Test::More;

my %point = (claims => 1, dlq => 2, deferred => 3, unapplied => 4, trades => 5, claims2 => 6);

sub new
{
	my ($class, $s) = @_;
	my $sql = <<'SQL';
CREATE TABLE public.holds (point integer PRIMARY KEY, fails boolean NOT NULL DEFAULT false);
GRANT SELECT ON public.holds TO PUBLIC;
CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    mine CONSTANT integer := TG_ARGV[0];
    raises boolean;
BEGIN
    LOOP
        SELECT h.fails INTO raises FROM public.holds h WHERE h.point = mine;
        EXIT WHEN NOT FOUND OR (TG_RELID <> 'public.trades'::regclass AND NOT EXISTS
            (SELECT FROM pg_stat_activity WHERE pid = pg_backend_pid() AND backend_type = 'settlement worker'));
        EXIT WHEN NOT pg_try_advisory_xact_lock(4242, mine);
        IF raises THEN
            RAISE EXCEPTION 'failed by the test';
        END IF;
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN NEW;
END $$;
SQL
	for my $point (sort keys %point)
	{
		# before a row of claims is locked, so that others can still take it
		my $event = $point =~ /^claims/ ? 'DELETE ON settlement.claims FOR EACH STATEMENT'
			: $point eq 'trades' ? 'UPDATE ON public.trades FOR EACH ROW'
			: "INSERT ON settlement.$point FOR EACH ROW";
		# triggers fire in the order of their names
		$sql .= "CREATE TRIGGER hold_$point BEFORE $event EXECUTE FUNCTION public.hold($point{$point});\n";
	}
	$s->sql($sql);
	return bless { s => $s }, $class;
}

sub at { my ($self, $at) = @_; $self->{s}->sql("INSERT INTO holds VALUES ($point{$at})") }
sub raise_at { my ($self, $at) = @_; $self->{s}->sql("UPDATE holds SET fails = true WHERE point = $point{$at}") }
sub release { my ($self, $at) = @_; $self->{s}->sql("DELETE FROM holds WHERE point = $point{$at}") }

sub reached
{
	my ($self, $at, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $self->{s}->becomes("SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND classid = 4242 AND objid = $point{$at}",
		't', $name // "a worker stops where it writes $at");
}

1;
