#!/usr/bin/perl
# The command line: what is refused, and that a signal ends the program cleanly.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Walletd;

Walletd::build();
my $binary = $ENV{WALLETD} // Walletd::root() . '/wallet/walletd';
my $missing = '/nonexistent/file';

sub refused
{
	my ($args, $message, $name) = @_;
	my $output = `'$binary' $args 2>&1 </dev/null`;
	my $status = $? >> 8;
	ok($status != 0 && $output =~ $message, "refuses_$name")
		or diag "status $status: $output";
}

refused('', qr/--db is required/, 'to_run_without_a_database');
refused('--db :memory: --bogus', qr/unknown option "--bogus"/, 'an_unknown_option');
refused('--db', qr/--db needs a value/, 'an_option_without_its_value');
refused('--db :memory: extra', qr/unexpected argument "extra"/, 'a_stray_argument');
refused('--db :memory: --listen 8080', qr/must be HOST:PORT/, 'a_listen_address_without_host');
refused('--db :memory: --listen localhost:1', qr/numeric address/, 'a_host_name');
refused('--db :memory: --listen 127.0.0.1:70000', qr/must be HOST:PORT/, 'a_port_out_of_range');
refused('--db :memory: --sync maybe', qr/--sync must be full or off/, 'an_unknown_sync_mode');
refused('--db :memory: --seed x', qr/--seed must be a whole number/, 'a_seed_that_is_no_number');
refused('--db :memory: --tls-cert x', qr/belong together/, 'a_certificate_without_key');
refused('--db :memory: --tls-client-ca x', qr/needs --tls-cert/, 'a_client_ca_without_tls');
refused("--db :memory: --tls-cert $missing --tls-key $missing", qr/could not read/, 'a_missing_certificate');
refused("--db :memory: --auth $missing", qr/could not read the --auth file/, 'a_missing_token_file');
refused('--db :memory: --fee-account external', qr/--fee-account cannot be/, 'the_deposit_source_as_fee_account');
refused("--db $missing", qr/could not open/, 'a_database_that_cannot_be_opened');
refused("--db :memory: --faults $missing", qr/could not read/, 'a_missing_faults_file');
like(`'$binary' --help`, qr/usage: walletd/, 'help_is_printed');
is($? >> 8, 0, 'help_ends_well');

my $wallet = Walletd->start(args => ['--log', '/dev/null']);
is($wallet->get('/healthz')->{json}{status}, 'ok', 'a_free_port_is_taken_and_told');
is($wallet->stop, 0, 'sigterm_ends_it_cleanly');

my $second = Walletd->start(args => ['--no-admin']);
is($second->post('/admin/deposit', '{}')->{status}, 403, 'admin_can_be_switched_off');
is($second->stop, 0, 'and_ends_cleanly_again');

done_testing;
