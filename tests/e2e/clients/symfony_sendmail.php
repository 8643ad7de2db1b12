<?php
// Sends messages by Symfony Mailer with the transport of DSN, as Magento 2.4.8 and Laravel do.
// Usage: php -d sendmail_path=... symfony_sendmail.php DSN TIMES SENDER RECIPIENT BCC
require '/usr/share/php/Symfony/Component/Mailer/autoload.php';
require '/usr/share/php/Symfony/Component/Mime/autoload.php';

use Symfony\Component\Mailer\Transport;
use Symfony\Component\Mime\Address;
use Symfony\Component\Mime\Email;

[, $dsn, $times, $sender, $to, $bcc] = $argv;
$transport = Transport::fromDsn($dsn);
for ($i = 0; $i < (int) $times; $i++) {
    $email = (new Email())
        ->from(new Address('shop@shop.test', 'Käserei Müller'))
        ->sender($sender)
        ->to(new Address($to, 'Doe, "Jane"'))
        ->bcc($bcc)
        ->subject('Bestellung größer')
        ->text("Grüße\n.a line with a dot\n.\nend\n");
    $transport->send($email);
}
echo "sent\n";
