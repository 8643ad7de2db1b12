<?php
// Sends one message by mail() as a shop with PHP's own function does (Magento 1, WordPress).
// Usage: php -d sendmail_path=... mail.php SENDER RECIPIENT BCC; SENDER '' gives no fifth argument.
[, $sender, $to, $bcc] = $argv;
$headers = "From: shop@shop.test\r\nBcc: $bcc\r\nContent-Type: text/plain; charset=utf-8";
$arguments = [$to, '=?utf-8?q?gr=C3=B6=C3=9Fer?=', "Grüße\n.a line with a dot\n.\nend\n", $headers];
if ($sender !== '') {
    $arguments[] = "-f$sender";
}
echo mail(...$arguments) ? "sent\n" : "failed\n";
