<?php
// Sends one message by SMTP as a shop with PHPMailer does.
// Usage: php phpmailer_smtp.php PORT SENDER RECIPIENT...; prints what the gateway said.
// Logs in as $SMTP_USER with $SMTP_PASSWORD, if set.
require '/usr/share/php/libphp-phpmailer/autoload.php';

use PHPMailer\PHPMailer\PHPMailer;

[, $port, $sender] = $argv;
$mail = new PHPMailer(true);
$mail->isSMTP();
$mail->Host = '127.0.0.1';
$mail->Port = (int) $port;
if (getenv('SMTP_USER')) {
    $mail->SMTPAuth = true;
    $mail->Username = getenv('SMTP_USER');
    $mail->Password = getenv('SMTP_PASSWORD');
}
$mail->CharSet = PHPMailer::CHARSET_UTF8;
$mail->Encoding = PHPMailer::ENCODING_8BIT;
$mail->Sender = $sender;
$mail->setFrom('shop@shop.test', 'Käserei Müller');
foreach (array_slice($argv, 3) as $recipient) {
    $mail->addBCC($recipient);
}
$mail->Subject = 'Bestellung größer';
$mail->Body = "Grüße\n.a line with a dot\n.\nend\n";
$mail->send();
echo $mail->getSMTPInstance()->getLastTransactionID(), "\n";
