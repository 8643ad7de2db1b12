<?php
// Sends one message by smtp:// as a shop with Symfony Mailer does (Magento 2.4.8, Laravel).
// Usage: php symfony_smtp.php PORT SENDER RECIPIENT...; prints the queue id that Symfony read.
// Logs in as $SMTP_USER with $SMTP_PASSWORD, if set.
require '/usr/share/php/Symfony/Component/Mailer/autoload.php';
require '/usr/share/php/Symfony/Component/Mime/autoload.php';

use Symfony\Component\Mailer\Envelope;
use Symfony\Component\Mailer\Transport;
use Symfony\Component\Mime\Address;
use Symfony\Component\Mime\Email;

[, $port, $sender] = $argv;
$recipients = array_map(fn (string $to) => new Address($to), array_slice($argv, 3));
$email = (new Email())
    ->from(new Address('shop@shop.test', 'Käserei Müller'))
    ->to(...$recipients)
    ->subject('Bestellung größer')
    ->text("Grüße\n.a line with a dot\n.\nend\n");
$login = getenv('SMTP_USER') ? getenv('SMTP_USER') . ':' . getenv('SMTP_PASSWORD') . '@' : '';
$sent = Transport::fromDsn("smtp://{$login}127.0.0.1:$port")
    ->send($email, new Envelope(new Address($sender), $recipients));
echo $sent->getMessageId(), "\n";
